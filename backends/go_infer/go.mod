module sluicegate/go_infer

go 1.24
