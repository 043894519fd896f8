// SPDX-License-Identifier: MIT

//go:build go1.21

package main

import "context"

func afterFunc(c context.Context, f func()) {
	context.AfterFunc(c, f)
}
