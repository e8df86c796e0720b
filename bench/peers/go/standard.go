// SPDX-License-Identifier: MIT

//go:build !modules

package main

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"
)

func init() {
	rows = append(rows,
		benchmark{"timeout_ready/go_with_timeout", 1, 1, withTimeout},
		benchmark{"timeout_ready/go_with_timeout_select", 1, 1, withTimeoutAndSelect},
		benchmark{"yield/go_gosched", 1, 1, yield},
		benchmark{"semaphore_uncontended/go_mutex", 1, 1, mutex},
		benchmark{"semaphore_ping_pong/go_channel", 1, 2, func(b *testing.B) { pingPong(b, 0, false) }},
		benchmark{"semaphore_ping_pong/go_channel_buffered", 1, 2, func(b *testing.B) { pingPong(b, 1, false) }},
		benchmark{"semaphore_ping_pong_2_threads/go_channel_any_thread", 2, 2, func(b *testing.B) { pingPong(b, 0, false) }},
		benchmark{"semaphore_ping_pong_2_threads/go_channel_buffered_any_thread", 2, 2, func(b *testing.B) { pingPong(b, 1, false) }},
		benchmark{"hop_round_trip_asleep/go_channel_between_locked_threads", 2, 1, func(b *testing.B) { pingPong(b, 0, true) }},
		benchmark{"pool_spawn_1t_1m/go_wait_group", 1, 1_000_000, func(b *testing.B) { spawn(b, 1_000_000) }},
		benchmark{"pool_spawn_2t_1m/go_wait_group", 2, 1_000_000, func(b *testing.B) { spawn(b, 1_000_000) }},
		benchmark{"pool_spawn_1t_1k/go_wait_group", 1, 1_000, func(b *testing.B) { spawn(b, 1_000) }},
		benchmark{"pool_spawn_2t_1k/go_wait_group", 2, 1_000, func(b *testing.B) { spawn(b, 1_000) }},
		benchmark{"pool_fib25_1t/go_wait_group", 1, callsOfFib25, fib25},
		benchmark{"pool_fib25_2t/go_wait_group", 2, callsOfFib25, fib25},
		benchmark{"pool_skynet_1t/go_channel", 1, 111_111, skynet100k},
		benchmark{"pool_skynet_2t/go_channel", 2, 111_111, skynet100k},
		benchmark{"channel_uncontended/go_channel", 1, 1, uncontended},
		benchmark{"channel_stream/go_channel", 1, 1, func(b *testing.B) { stream(b, 64) }},
		benchmark{"channel_rendezvous/go_channel", 1, 1, func(b *testing.B) { stream(b, 0) }},
		benchmark{"channel_stream_2_threads/go_channel_any_thread", 2, 1, func(b *testing.B) { stream(b, 64) }},
		benchmark{"object_pair/go_sync_pool", 1, 1, pooled},
		benchmark{"object_pair_2_threads/go_sync_pool", 2, 1, pooledByTwo},
		benchmark{"object_64/go_sync_pool", 1, 64, pooled64},
	)
}

// --- deadlines ------------------------------------------------------------------------------------------------------

func withTimeout(b *testing.B) {
	for i := 0; i < b.N; i++ {
		_, cancel := context.WithTimeout(context.Background(), time.Hour)
		cancel()
	}
}

// Waits for what is there already, or for the deadline.
func withTimeoutAndSelect(b *testing.B) {
	ready := make(chan struct{})
	close(ready)
	for i := 0; i < b.N; i++ {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		select {
		case <-ready:
		case <-ctx.Done():
			fail("the deadline passed")
		}
		cancel()
	}
}

// --- one and two goroutines -----------------------------------------------------------------------------------------

func yield(b *testing.B) {
	for i := 0; i < b.N; i++ {
		runtime.Gosched()
	}
}

func mutex(b *testing.B) {
	var m sync.Mutex
	for i := 0; i < b.N; i++ {
		m.Lock()
		m.Unlock() //nolint:staticcheck // empty on purpose
	}
}

// Locked to threads, each switch is one from thread to thread; else the scheduler may keep both on one.
func pingPong(b *testing.B, capacity int, locked bool) {
	ping, pong := make(chan int, capacity), make(chan int, capacity)
	go func() {
		if locked {
			runtime.LockOSThread()
		}
		for range ping {
			pong <- 1
		}
		close(pong)
	}()
	if locked {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	for i := 0; i < b.N; i++ {
		ping <- 1
		<-pong
	}
	close(ping)
	<-pong
}

func uncontended(b *testing.B) {
	c := make(chan int, 16)
	sum := 0
	for i := 0; i < b.N; i++ {
		c <- 1
		sum += <-c
	}
	expect(sum == b.N)
}

func stream(b *testing.B, capacity int) {
	c, sums := make(chan int, capacity), make(chan int)
	go func() {
		sum := 0
		for item := range c {
			sum += item
		}
		sums <- sum
	}()
	for i := 0; i < b.N; i++ {
		c <- 1
	}
	close(c)
	expect(<-sums == b.N)
}

// --- objects --------------------------------------------------------------------------------------------------------

type object struct{ bytes [256]byte }

var objects = sync.Pool{New: func() any { return new(object) }}

func pooled(b *testing.B) {
	for i := 0; i < b.N; i++ {
		objects.Put(objects.Get())
	}
}

func pooledByTwo(b *testing.B) {
	share(b, 2, func(n int) {
		for i := 0; i < n; i++ {
			objects.Put(objects.Get())
		}
	})
}

func pooled64(b *testing.B) {
	var held [64]any
	for i := 0; i < b.N; i++ {
		for j := range held {
			held[j] = objects.Get()
		}
		for j := range held {
			objects.Put(held[j])
		}
	}
}

// --- many -----------------------------------------------------------------------------------------------------------

func spawn(b *testing.B, n int) {
	for i := 0; i < b.N; i++ {
		var all sync.WaitGroup
		all.Add(n)
		for j := 0; j < n; j++ {
			go all.Done()
		}
		all.Wait()
	}
}

const callsOfFib25 = 242_785

// Forks one and runs the other itself.
func fib(n int) int {
	if n < 2 {
		return n
	}
	var forked sync.WaitGroup
	var first int
	forked.Add(1)
	go func() {
		first = fib(n - 1)
		forked.Done()
	}()
	second := fib(n - 2)
	forked.Wait()
	return first + second
}

func fib25(b *testing.B) {
	for i := 0; i < b.N; i++ {
		expect(fib(25) == 75_025)
	}
}

func skynet(into chan<- int, first, leaves int) {
	if leaves == 1 {
		into <- first
		return
	}
	sums := make(chan int, 10)
	for i := 0; i < 10; i++ {
		go skynet(sums, first+i*(leaves/10), leaves/10)
	}
	sum := 0
	for i := 0; i < 10; i++ {
		sum += <-sums
	}
	into <- sum
}

func skynet100k(b *testing.B) {
	for i := 0; i < b.N; i++ {
		sum := make(chan int, 1)
		skynet(sum, 0, 100_000)
		expect(<-sum == 4_999_950_000)
	}
}
