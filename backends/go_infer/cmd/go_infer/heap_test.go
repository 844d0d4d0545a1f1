package main

import (
	"runtime"
	"testing"
)

func TestTheReserveKeepsTheCollectorFromRunningOften(t *testing.T) {
	goal := func() uint64 {
		runtime.GC()
		var seen runtime.MemStats
		runtime.ReadMemStats(&seen)
		return seen.NextGC
	}
	without := goal()
	release := reserve(64 << 20)
	with := goal()
	release()
	if with < without+64<<20 {
		t.Errorf("the next collection is at %d bytes with a reserve of 64 MiB, at %d without", with, without)
	}
}
