// SPDX-License-Identifier: MIT

//go:build !go1.21

package main

import (
	"context"
	"sync"
)

// afterFunc is what programs wrote before context.AfterFunc came.
func afterFunc(c context.Context, f func()) {
	go func() {
		<-c.Done()
		f()
	}()
}

// stoppable is the same for those that are taken back. When both channels are ready, select takes either.
func stoppable(c context.Context, f func()) (stop func() bool) {
	var once sync.Once
	stopped := make(chan struct{})
	go func() {
		select {
		case <-c.Done():
			once.Do(f)
		case <-stopped:
		}
	}()
	return func() bool {
		first := false
		once.Do(func() { first = true })
		close(stopped)
		return first
	}
}
