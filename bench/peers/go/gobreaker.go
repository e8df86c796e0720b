// SPDX-License-Identifier: MIT

//go:build modules

package main

import (
	"time"

	"github.com/sony/gobreaker/v2"
)

// gobreaker has no window of the last calls: the row beside such counts all since the breaker closed. Each permit and
// each record reads the clock.
func init() {
	sinceClosed := succeedThrough(gobreaker.Settings{})
	last := succeedThrough(gobreaker.Settings{Interval: 10 * time.Second, BucketPeriod: time.Second})
	open := gobreaker.NewTwoStepCircuitBreaker[int](gobreaker.Settings{
		Timeout:     24 * time.Hour,
		ReadyToTrip: func(gobreaker.Counts) bool { return true },
	})
	done, _ := open.Allow()
	done(gobreaker.ErrOpenState)
	refusal := func() bool {
		_, err := open.Allow()
		return err == gobreaker.ErrOpenState
	}
	rows = append(rows,
		guard("breaker_last_calls/go_gobreaker_since_closed", sinceClosed),
		guard("breaker_last/go_gobreaker", last),
		guard("breaker_2_threads/go_gobreaker_since_closed", sinceClosed),
		guard("breaker_2_threads/go_gobreaker_last", last),
		guard("breaker_refusal/go_gobreaker", refusal),
		guard("breaker_refusal_2_threads/go_gobreaker", refusal),
	)
}

func succeedThrough(settings gobreaker.Settings) func() bool {
	breaker := gobreaker.NewTwoStepCircuitBreaker[int](settings)
	return func() bool {
		done, err := breaker.Allow()
		if err != nil {
			return false
		}
		done(nil)
		return true
	}
}
