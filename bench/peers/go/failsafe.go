// SPDX-License-Identifier: MIT

//go:build modules

package main

import (
	"errors"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/fallback"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
)

func init() {
	addBreakers()
	addLimits()
	addPipelines()
}

func ofCalls() circuitbreaker.Builder[int] {
	return circuitbreaker.NewBuilder[int]().WithFailureThresholdRatio(50, 100).WithDelay(24 * time.Hour)
}

// A permit of a closed breaker of failsafe-go looks at the state alone.
func addBreakers() {
	calls := succeedThroughFailsafe(ofCalls().Build())
	last := succeedThroughFailsafe(circuitbreaker.NewBuilder[int]().WithFailureRateThreshold(0.5, 20, 10*time.Second).Build())
	open := ofCalls().Build()
	open.Open()
	refusal := func() bool { return !open.TryAcquirePermit() }
	rows = append(rows,
		guard("breaker_last_calls/go_failsafe", calls),
		guard("breaker_last/go_failsafe", last),
		guard("breaker_2_threads/go_failsafe", calls),
		guard("breaker_2_threads/go_failsafe_last", last),
		guard("breaker_refusal/go_failsafe", refusal),
		guard("breaker_refusal_2_threads/go_failsafe", refusal),
	)
}

func succeedThroughFailsafe(breaker circuitbreaker.CircuitBreaker[int]) func() bool {
	return func() bool {
		if !breaker.TryAcquirePermit() {
			return false
		}
		breaker.RecordSuccess()
		return true
	}
}

// The bursty rate limiter fills up when its period begins. The adaptive limiter keeps its samples in a digest.
func addLimits() {
	plenty := ratelimiter.NewBursty[int](1e9, time.Second)
	nothing := ratelimiter.NewBursty[int](1, 24*time.Hour)
	nothing.TryAcquirePermit()
	refuse := func() bool { return !nothing.TryAcquirePermit() }
	slots := bulkhead.New[int](8)
	place := func() bool {
		if !slots.TryAcquirePermit() {
			return false
		}
		slots.ReleasePermit()
		return true
	}
	full := bulkhead.New[int](1)
	full.TryAcquirePermit()
	refusePlace := func() bool { return !full.TryAcquirePermit() }
	adaptive := adaptivelimiter.NewBuilder[int]().WithLimits(8, 200, 8).Build()
	sample := func() bool {
		permit, admitted := adaptive.TryAcquirePermit()
		if admitted {
			permit.Record()
		}
		return admitted
	}
	rows = append(rows,
		guard("token_bucket_accept/go_failsafe_bursty", plenty.TryAcquirePermit),
		guard("token_bucket_accept_2_threads/go_failsafe_bursty", plenty.TryAcquirePermit),
		guard("token_bucket_refuse/go_failsafe_bursty", refuse),
		guard("token_bucket_refuse_2_threads/go_failsafe_bursty", refuse),
		guard("bulkhead/go_failsafe", place),
		guard("bulkhead_2_threads/go_failsafe", place),
		guard("bulkhead_refuse/go_failsafe", refusePlace),
		guard("bulkhead_refuse_2_threads/go_failsafe", refusePlace),
		guard("adaptive_limiter/go_failsafe", sample),
		guard("adaptive_limiter_2_threads/go_failsafe", sample),
	)
}

//go:noinline
func function() (int, error) { return 1, nil }

// A plain function, called through the policies that the pipeline of C++ has.
func addPipelines() {
	five := failsafe.With[int](
		fallback.NewWithResult(-1),
		retrypolicy.NewBuilder[int]().WithMaxAttempts(3).WithBudget(budget.New()).Build(),
		ofCalls().Build(),
		ratelimiter.NewBursty[int](1e9, time.Second),
		bulkhead.New[int](16))
	call := func() bool {
		n, err := five.Get(function)
		return err == nil && n == 1
	}
	open := ofCalls().Build()
	open.Open()
	closedTo := failsafe.With[int](open)
	refusal := func() bool {
		_, err := closedTo.Get(function)
		return errors.Is(err, circuitbreaker.ErrOpen)
	}
	rows = append(rows,
		guard("pipeline_on_a_thread/go_failsafe", call),
		guard("pipeline_refusal/go_failsafe", refusal),
		guard("pipeline_refusal_2_threads/go_failsafe", refusal),
	)
}
