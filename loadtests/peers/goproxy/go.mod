module sluicegate/loadtests/goproxy

go 1.24
