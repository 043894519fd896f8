// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"time"
)

type request struct {
	ctx    context.Context
	cancel context.CancelFunc
	stop   func() bool
}

// requestLife is what bench/request.c does.
func requestLife(b *bench) {
	server, cancel := context.WithCancel(context.Background())
	all := make([]request, b.arg)
	calls, oldest, live := 0, 0, true
	begin := func() (r request) {
		r.ctx, r.cancel = context.WithTimeout(server, time.Minute)
		r.stop = stoppable(r.ctx, func() { calls++ })
		return
	}
	end := func(r *request) {
		for i := 0; i < 3; i++ {
			live = live && r.ctx.Err() == nil
		}
		live = r.stop() && live
		r.cancel()
	}
	for i := range all {
		all[i] = begin()
	}
	b.loop(func(n int) {
		for i := 0; i < n; i++ {
			end(&all[oldest])
			all[oldest] = begin()
			if oldest++; oldest == b.arg {
				oldest = 0
			}
		}
	})
	for i := range all {
		end(&all[i])
	}
	check(live && calls == 0, "live until its end")
	cancel()
}
