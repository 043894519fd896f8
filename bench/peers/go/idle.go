// SPDX-License-Identifier: MIT

package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const touches = 10

func touch(b *bench) {
	t := time.AfterFunc(time.Hour, func() {})
	b.loop(func(n int) {
		for i := 0; i < n; i++ {
			t.Reset(time.Hour)
		}
	})
	check(t.Stop(), "it has not run")
}

var idleTimeout = 200 * time.Millisecond

// touchAll sets all timers anew, in rounds that begin a quarter of the timeout apart. False: it was too slow.
func touchAll(timers []*time.Timer) bool {
	before, inTime := time.Now(), true
	for round := 0; round < touches; round++ {
		time.Sleep(time.Until(before.Add(idleTimeout / 4)))
		began := time.Now()
		for _, t := range timers {
			t.Reset(idleTimeout)
		}
		inTime = inTime && time.Since(before) < idleTimeout
		before = began
	}
	return inTime
}

// idleLife is what bench/idle.c does, with timers that are set anew.
func idleLife(b *bench) {
	n := b.arg
	if b.smoke {
		n = 100
	}
	for b.more() {
		var over sync.WaitGroup
		left := int64(n)
		over.Add(1)
		began, started := cpuTime(), time.Now()
		timers := make([]*time.Timer, n)
		for i := range timers {
			timers[i] = time.AfterFunc(idleTimeout, func() {
				if atomic.AddInt64(&left, -1) == 0 {
					over.Done()
				}
			})
		}
		inTime := time.Since(started) < idleTimeout/2
		if !inTime || !touchAll(timers) {
			for _, t := range timers {
				t.Stop()
			}
			idleTimeout *= 2
			b.miss()
			continue
		}
		over.Wait()
		b.sample(float64(cpuTime()-began) / float64(n))
	}
}

var idleHeap float64

// idleBytes measures once: timers that were stopped stay on the heap for a while.
func idleBytes(b *bench) {
	n := 1000000
	if b.smoke {
		n = 10000
	}
	if idleHeap == 0 {
		all := make([]*time.Timer, n)
		var ended int64
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range all {
			all[i] = time.AfterFunc(time.Hour, func() { atomic.AddInt64(&ended, 1) })
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		idleHeap = float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
		for _, t := range all {
			check(t.Stop(), "it has not run")
		}
	}
	b.sample(idleHeap)
}
