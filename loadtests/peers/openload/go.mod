module sluicegate/loadtests/openload

go 1.24
