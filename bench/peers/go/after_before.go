// SPDX-License-Identifier: MIT

//go:build !go1.21

package main

import "context"

// afterFunc is what programs wrote before context.AfterFunc came.
func afterFunc(c context.Context, f func()) {
	go func() {
		<-c.Done()
		f()
	}()
}
