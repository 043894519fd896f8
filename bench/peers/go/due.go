// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// cpuTime is what the process has used, its collector included.
func cpuTime() int64 {
	var u syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil, "getrusage")
	return u.Utime.Nano() + u.Stime.Nano()
}

var ahead = 400 * time.Millisecond

// allDue is arg contexts with one deadline and an after-func each. figure takes the CPU time at its begin, when all are
// made, when all have run and when all are gone, and the lateness of the last.
func allDue(figure func(began, made, ran, gone int64, n int, late time.Duration) float64) func(b *bench) {
	return func(b *bench) {
		n := b.arg
		if b.smoke {
			n = 100
		}
		for b.more() {
			var over sync.WaitGroup
			var left, last int64 = int64(n), 0
			over.Add(1)
			began, start := cpuTime(), time.Now()
			deadline := start.Add(ahead)
			cancels := make([]context.CancelFunc, n)
			for i := range cancels {
				c, cancel := context.WithDeadline(context.Background(), deadline)
				afterFunc(c, func() {
					if atomic.AddInt64(&left, -1) == 0 {
						atomic.StoreInt64(&last, int64(time.Since(start)))
						over.Done()
					}
				})
				cancels[i] = cancel
			}
			made, inTime := cpuTime(), time.Now().Before(deadline)
			over.Wait()
			ran := cpuTime()
			for _, cancel := range cancels {
				cancel()
			}
			late := time.Duration(last) - ahead
			check(late >= 0, "not before the deadline")
			if !inTime {
				ahead *= 2
				b.miss()
				continue
			}
			b.sample(figure(began, made, ran, cpuTime(), n, late))
		}
	}
}

func dueRun(_, made, ran, _ int64, n int, _ time.Duration) float64 {
	return float64(ran-made) / float64(n)
}

func dueLife(began, _, _, gone int64, n int, _ time.Duration) float64 {
	return float64(gone-began) / float64(n)
}

func dueLast(_, _, _, _ int64, _ int, late time.Duration) float64 {
	return float64(late.Nanoseconds())
}
