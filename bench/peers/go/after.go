// SPDX-License-Identifier: MIT

//go:build go1.21

package main

import "context"

func afterFunc(c context.Context, f func()) {
	context.AfterFunc(c, f)
}

// stoppable is the same for those that are taken back.
func stoppable(c context.Context, f func()) (stop func() bool) {
	return context.AfterFunc(c, f)
}
