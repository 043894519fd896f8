// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// What follows are the benchmarks of the package itself, as they stand in its benchmark_test.go.

func commonParent(b *bench) {
	root := context.WithValue(context.Background(), "key", "value")
	shared, cancel := context.WithCancel(root)
	defer cancel()
	b.parallel(runtime.GOMAXPROCS(0), func(_, n int) {
		x := 0
		for i := 0; i < n; i++ {
			c, stop := context.WithCancel(shared)
			check(c.Value("key").(string) == "value", "value")
			for i := 0; i < 100; i++ {
				x /= x + 1
			}
			stop()
			for i := 0; i < 100; i++ {
				x /= x + 1
			}
		}
	})
}

func withTimeout(b *bench) {
	alive := make([]context.CancelFunc, b.arg)
	for i := range alive {
		_, alive[i] = context.WithTimeout(context.Background(), time.Hour)
	}
	b.parallel(runtime.GOMAXPROCS(0), func(_, n int) {
		cancels := make([]context.CancelFunc, 10)
		for i := 0; i < n; i++ {
			for j := range cancels {
				_, cancels[j] = context.WithTimeout(context.Background(), time.Hour)
			}
			for _, cancel := range cancels {
				cancel()
			}
		}
	})
	for _, cancel := range alive {
		cancel()
	}
}

func build(root context.Context, depth int) {
	for d := 0; d < depth; d++ {
		var cancel context.CancelFunc
		root, cancel = context.WithCancel(root)
		_ = cancel
	}
}

func cancelTree(kind string) func(b *bench) {
	return func(b *bench) {
		b.loop(func(n int) {
			for i := 0; i < n; i++ {
				switch kind {
				case "background":
					build(context.Background(), b.arg)
				case "open":
					c, cancel := context.WithCancel(context.Background())
					build(c, b.arg)
					cancel()
				case "closed":
					c, cancel := context.WithCancel(context.Background())
					cancel()
					build(c, b.arg)
				}
			}
		})
	}
}

func checkDone(b *bench) {
	c := done()
	b.loop(func(n int) {
		for i := 0; i < n; i++ {
			select {
			case <-c.Done():
				sink++
			default:
			}
		}
	})
	check(sink > 0, "done")
}

func cancelDone(b *bench) {
	c := live()
	b.parallel(runtime.GOMAXPROCS(0), func(_, n int) {
		for i := 0; i < n; i++ {
			select {
			case <-c.Done():
				check(false, "live")
			default:
			}
		}
	})
}

func deepValue(newGoroutine bool) func(b *bench) {
	return func(b *bench) {
		c := context.Background()
		for i := 0; i < b.arg; i++ {
			c = context.WithValue(c, i, i)
		}
		b.loop(func(n int) {
			for i := 0; i < n; i++ {
				if newGoroutine {
					var wg sync.WaitGroup
					wg.Add(1)
					go func() {
						defer wg.Done()
						c.Value(-1)
					}()
					wg.Wait()
				} else {
					c.Value(-1)
				}
			}
		})
	}
}
