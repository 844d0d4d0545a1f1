module sluicegate/tests/interop/gonet

go 1.24
