module sluicegate/tests/interop/servers/gonet

go 1.24
