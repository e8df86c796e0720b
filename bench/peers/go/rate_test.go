// SPDX-License-Identifier: MIT

//go:build x_time

package bench

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

func init() {
	rows = append(rows,
		benchmark{"token_bucket_accept/go_x_time_rate", 1, 1, func(b *testing.B) { allow(b, plenty(), true, 1) }},
		benchmark{"token_bucket_accept_2_threads/go_x_time_rate", 2, 1, func(b *testing.B) { allow(b, plenty(), true, 2) }},
		benchmark{"token_bucket_refuse/go_x_time_rate", 1, 1, func(b *testing.B) { allow(b, nothing(), false, 1) }},
		benchmark{"token_bucket_refuse_2_threads/go_x_time_rate", 2, 1, func(b *testing.B) { allow(b, nothing(), false, 2) }},
	)
}

func plenty() *rate.Limiter { return rate.NewLimiter(1e15, 1e9) }

func nothing() *rate.Limiter {
	l := rate.NewLimiter(rate.Every(time.Hour), 1)
	l.Allow()
	return l
}

// By as many goroutines, which share the work.
func allow(b *testing.B, l *rate.Limiter, expected bool, goroutines int) {
	var all sync.WaitGroup
	for g := 0; g < goroutines; g++ {
		n := b.N / goroutines
		if g == 0 {
			n += b.N % goroutines
		}
		all.Add(1)
		go func() {
			defer all.Done()
			for i := 0; i < n; i++ {
				if l.Allow() != expected {
					b.Error("the limiter did not say what it should")
					return
				}
			}
		}()
	}
	all.Wait()
}
