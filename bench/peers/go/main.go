// SPDX-License-Identifier: MIT

// Go's context. Speaks to bench/run as subject.c does. Nothing is pinned: the runtime schedules as it does in any program,
// and its collector runs beside on the other CPUs.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	batch      = 20 * time.Microsecond
	maxSamples = 5000
)

type bench struct {
	arg, n  int
	smoke   bool
	batch   time.Duration
	budget  time.Duration
	began   time.Time
	samples []float64
	missed  int
}

func (b *bench) more() bool {
	return len(b.samples) == 0 || time.Since(b.began) < b.budget && len(b.samples) < maxSamples
}

func (b *bench) sample(v float64) {
	b.samples = append(b.samples, v)
}

func (b *bench) miss() {
	b.missed++
	check(b.missed <= 100+len(b.samples), "too many waits that did not sleep")
}

// done ends a batch of ops operations on each of threads goroutines.
func (b *bench) done(took time.Duration, ops, threads int) {
	if took < b.batch && ops == b.n {
		b.n *= 2
		return
	}
	b.sample(float64(took.Nanoseconds()) / float64(ops*threads))
}

// loop is a whole round of batches of f(n).
func (b *bench) loop(f func(n int)) {
	for b.more() {
		t := time.Now()
		f(b.n)
		b.done(time.Since(t), b.n, 1)
	}
}

// parallel is a whole round of batches of f(thread, n) in as many goroutines at once.
func (b *bench) parallel(threads int, f func(thread, n int)) {
	if !b.smoke {
		b.batch = time.Millisecond
	}
	for b.more() {
		var ready, over sync.WaitGroup
		start := make(chan struct{})
		ready.Add(threads)
		over.Add(threads)
		for i := 0; i < threads; i++ {
			go func(i int) {
				defer over.Done()
				ready.Done()
				<-start
				f(i, b.n)
			}(i)
		}
		ready.Wait()
		t := time.Now()
		close(start)
		over.Wait()
		b.done(time.Since(t), b.n, threads)
	}
}

func check(ok bool, what string) {
	if !ok {
		fmt.Println("fail main.go:", what)
		os.Exit(1)
	}
}

// A pointer is the quickest kind of key.
type key struct{ name string }

var sink int

func makeOne(parent context.Context) {
	_, cancel := context.WithCancel(parent)
	cancel()
}

func makePlain(b *bench) {
	parent, cancel := context.WithCancel(context.Background())
	b.loop(func(n int) {
		for i := 0; i < n; i++ {
			makeOne(parent)
		}
	})
	c, stop := context.WithCancel(parent)
	stop()
	check(c.Err() == context.Canceled && parent.Err() == nil, "cancelled, its parent not")
	cancel()
}

func makeTimed(b *bench) {
	parent, cancel := context.WithCancel(context.Background())
	b.loop(func(n int) {
		for i := 0; i < n; i++ {
			_, stop := context.WithTimeout(parent, time.Hour)
			stop()
		}
	})
	cancel()
}

func makePlainDone(b *bench) {
	parent, cancel := context.WithCancel(context.Background())
	b.loop(func(n int) {
		for i := 0; i < n; i++ {
			c, stop := context.WithCancel(parent)
			c.Done()
			stop()
		}
	})
	cancel()
}

func makeTimedDone(b *bench) {
	parent, cancel := context.WithCancel(context.Background())
	b.loop(func(n int) {
		for i := 0; i < n; i++ {
			c, stop := context.WithTimeout(parent, time.Hour)
			c.Done()
			stop()
		}
	})
	cancel()
}

func errOf(c context.Context, expected error) func(b *bench) {
	return func(b *bench) {
		wrong := false
		b.loop(func(n int) {
			for i := 0; i < n; i++ {
				wrong = wrong || c.Err() != expected
			}
		})
		check(!wrong, "err")
	}
}

func errAll(c context.Context, expected error) func(b *bench) {
	return func(b *bench) {
		b.parallel(runtime.GOMAXPROCS(0), func(_, n int) {
			wrong := false
			for i := 0; i < n; i++ {
				wrong = wrong || c.Err() != expected
			}
			check(!wrong, "err")
		})
	}
}

func live() context.Context {
	c, cancel := context.WithCancel(context.Background())
	keep = append(keep, cancel)
	return c
}

func timed() context.Context {
	c, cancel := context.WithTimeout(context.Background(), time.Hour)
	keep = append(keep, cancel)
	return c
}

func done() context.Context {
	c, cancel := context.WithCancel(context.Background())
	cancel()
	return c
}

var keep []context.CancelFunc

const nodes = 2000

func (b *bench) trees() int {
	if b.smoke || b.arg >= nodes {
		return 1
	}
	return nodes / b.arg
}

func tree(deep, withDone bool) func(b *bench) {
	return func(b *bench) {
		count := b.trees()
		all := make([]context.Context, count*b.arg)
		roots := make([]context.CancelFunc, count)
		for b.more() {
			for i := range roots {
				up, cancel := context.WithCancel(context.Background())
				roots[i] = cancel
				for j := 0; j < b.arg; j++ {
					c, stop := context.WithCancel(up)
					_ = stop
					if withDone {
						c.Done()
					}
					all[i*b.arg+j] = c
					if deep {
						up = c
					}
				}
			}
			t := time.Now()
			for _, cancel := range roots {
				cancel()
			}
			took := time.Since(t)
			b.sample(float64(took.Nanoseconds()) / float64(len(all)))
			for _, c := range all {
				check(c.Err() == context.Canceled, "every node cancelled")
			}
		}
	}
}

// asleep says whether every other thread of the process sleeps, so that the waiter does, whichever thread it is on.
func asleep(self string) bool {
	tasks, err := os.ReadDir("/proc/self/task")
	check(err == nil, "/proc/self/task")
	for _, t := range tasks {
		if t.Name() == self {
			continue
		}
		stat, err := os.ReadFile("/proc/self/task/" + t.Name() + "/stat")
		if err == nil && stat[bytes.LastIndexByte(stat, ')')+2] != 'S' {
			return false
		}
	}
	return true
}

func wake(b *bench) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, err := os.Readlink("/proc/thread-self")
	check(err == nil, "/proc/thread-self")
	self = self[strings.LastIndexByte(self, '/')+1:]
	turns, woken := make(chan context.Context), make(chan time.Time)
	go func() {
		for c := range turns {
			<-c.Done()
			t := time.Now()
			check(c.Err() != nil, "done has an err")
			woken <- t
		}
	}()
	for b.more() {
		c, cancel := context.WithCancel(context.Background())
		turns <- c
		limit := time.Now().Add(10 * time.Second)
		for !asleep(self) || !asleep(self) {
			check(time.Now().Before(limit), "the waiter sleeps")
		}
		t := time.Now()
		cancel()
		b.sample(float64((<-woken).Sub(t).Nanoseconds()))
	}
	close(turns)
}

func late(b *bench) {
	for i := 0; b.more(); i++ {
		deadline := time.Now().Add(150*time.Microsecond + time.Duration(i*37%64)*time.Microsecond)
		c, cancel := context.WithDeadline(context.Background(), deadline)
		<-c.Done()
		b.sample(float64(time.Since(deadline).Nanoseconds()))
		check(c.Err() == context.DeadlineExceeded, "the deadline did it")
		cancel()
	}
}

func wakeSame(b *bench) {
	b.loop(func(n int) {
		for i := 0; i < n; i++ {
			c, cancel := context.WithCancel(context.Background())
			cancel()
			<-c.Done()
		}
	})
}

func threads(shared bool) func(b *bench) {
	return func(b *bench) {
		parents := make([]context.Context, b.arg)
		for i := range parents {
			parents[i] = live()
			if shared {
				parents[i] = parents[0]
			}
		}
		b.parallel(b.arg, func(thread, n int) {
			parent := parents[thread]
			for i := 0; i < n; i++ {
				makeOne(parent)
			}
		})
	}
}

func value(hit, mixed bool) func(b *bench) {
	return func(b *bench) {
		keys := make([]*key, b.arg)
		c := context.Background()
		for i := range keys {
			keys[i] = &key{"k"}
			if mixed {
				var cancel context.CancelFunc
				c, cancel = context.WithCancel(c)
				keep = append(keep, cancel)
			}
			c = context.WithValue(c, keys[i], i+1)
		}
		k, expected := &key{"stranger"}, interface{}(nil)
		if hit {
			k, expected = keys[0], 1
		}
		wrong := false
		b.loop(func(n int) {
			for i := 0; i < n; i++ {
				wrong = wrong || c.Value(k) != expected
			}
		})
		check(!wrong, "value")
	}
}

func heapBytes(f func(parent context.Context) context.Context) func(b *bench) {
	return func(b *bench) {
		n := 1000000
		if b.smoke {
			n = 10000
		}
		all := make([]context.Context, n)
		parent := live()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range all {
			all[i] = f(parent)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.sample(float64(after.HeapAlloc-before.HeapAlloc) / float64(n))
		check(all[n-1].Err() == nil, "alive")
	}
}

func plainChild(parent context.Context) context.Context {
	c, cancel := context.WithCancel(parent)
	_ = cancel
	return c
}

func timedChild(parent context.Context) context.Context {
	c, cancel := context.WithTimeout(parent, time.Hour)
	_ = cancel
	return c
}

func valueChild(parent context.Context) context.Context {
	return context.WithValue(parent, &sink, nil)
}

func rows() map[string]func(b *bench) {
	return map[string]func(b *bench){
		"make/plain": makePlain, "make/apart": makePlain, "make/timed": makeTimed, "make/plain+fd": makePlainDone, "make/timed+fd": makeTimedDone,
		"err/live": errOf(live(), nil), "err/done": errOf(done(), context.Canceled),
		"err/far-deadline": errOf(timed(), nil), "err/near-deadline": errOf(timed(), nil),
		"err-all-cpus/live": errAll(live(), nil), "err-all-cpus/done": errAll(done(), context.Canceled),
		"err-all-cpus/far-deadline": errAll(timed(), nil),
		"cancel/children":           tree(false, false), "cancel/children+fd": tree(false, true), "cancel/chain": tree(true, false),
		"wake/wait": wake, "wake-awake/wait": wake, "wake-same-thread/wait": wakeSame, "late/wait": late,
		"threads/shared": threads(true), "threads/separate": threads(false),
		"value/hit": value(true, false), "value/miss": value(false, false),
		"value-mixed/hit": value(true, true), "value-mixed/miss": value(false, true),
		"request": requestLife,
		"due/run": allDue(dueRun), "due/last": allDue(dueLast), "due/life": allDue(dueLife),
		"idle/touch": touch, "idle/life": idleLife, "bytes/idle": idleBytes,
		"bytes/plain": heapBytes(plainChild), "bytes/timed": heapBytes(timedChild), "bytes/value": heapBytes(valueChild),
		"go/common-parent": commonParent, "go/with-timeout": withTimeout,
		"go/cancel-tree-background": cancelTree("background"), "go/cancel-tree-open": cancelTree("open"),
		"go/cancel-tree-closed": cancelTree("closed"), "go/check-canceled-err": errOf(done(), context.Canceled),
		"go/check-canceled-done": checkDone, "go/context-cancel-done": cancelDone,
		"go/deep-value-same": deepValue(false), "go/deep-value-new": deepValue(true),
	}
}

func main() {
	all := rows()
	if len(os.Args) == 2 && os.Args[1] == "--list" {
		for name := range all {
			fmt.Println("go", name)
		}
		return
	}
	b := &bench{n: 1, batch: batch}
	b.arg, _ = strconv.Atoi(os.Args[3])
	b.smoke = len(os.Args) > 4 && os.Args[4] == "smoke"
	if b.smoke {
		b.batch = 1
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		ns, _ := strconv.ParseInt(in.Text(), 10, 64)
		b.budget, b.began, b.samples, b.missed = time.Duration(ns), time.Now(), b.samples[:0], 0
		all[os.Args[2]](b)
		out := bufio.NewWriter(os.Stdout)
		fmt.Fprint(out, "ok")
		for _, s := range b.samples {
			fmt.Fprintf(out, " %.3f", s)
		}
		fmt.Fprintln(out)
		out.Flush()
	}
}
