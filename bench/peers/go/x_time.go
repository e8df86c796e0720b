// SPDX-License-Identifier: MIT

//go:build x_time

package main

import (
	"time"

	"golang.org/x/time/rate"
)

func init() {
	plenty := rate.NewLimiter(1e15, 1e9)
	nothing := rate.NewLimiter(rate.Every(time.Hour), 1)
	nothing.Allow()
	refuse := func() bool { return !nothing.Allow() }
	rows = append(rows,
		guard("token_bucket_accept/go_x_time_rate", plenty.Allow),
		guard("token_bucket_accept_2_threads/go_x_time_rate", plenty.Allow),
		guard("token_bucket_refuse/go_x_time_rate", refuse),
		guard("token_bucket_refuse_2_threads/go_x_time_rate", refuse),
	)
}
