module sluicegate/loadtests/slotserver

go 1.24
