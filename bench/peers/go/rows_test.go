// SPDX-License-Identifier: MIT

// Package bench does in Go what rows of the programs beside it do in C++, under the names of their figures. tools/bench
// runs it, and lists its rows by TestRows. Times are taken as those of C++: of the processor where one thread runs, by
// the wall where two meet and for pools.
package bench

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A row does its work b.N times; items is how many operations one of these is, and procs how many threads run Go code.
type benchmark struct {
	name  string
	procs int
	items int
	run   func(b *testing.B)
}

// rate_test.go adds its rows where its package is installed.
var rows = []benchmark{
	{"timeout_ready/go_with_timeout", 1, 1, withTimeout},
	{"timeout_ready/go_with_timeout_select", 1, 1, withTimeoutAndSelect},
	{"yield/go_gosched", 1, 1, yield},
	{"semaphore_uncontended/go_mutex", 1, 1, mutex},
	{"semaphore_ping_pong/go_channel", 1, 2, func(b *testing.B) { pingPong(b, 0, false) }},
	{"semaphore_ping_pong/go_channel_buffered", 1, 2, func(b *testing.B) { pingPong(b, 1, false) }},
	{"semaphore_ping_pong_2_threads/go_channel_any_thread", 2, 2, func(b *testing.B) { pingPong(b, 0, false) }},
	{"semaphore_ping_pong_2_threads/go_channel_buffered_any_thread", 2, 2, func(b *testing.B) { pingPong(b, 1, false) }},
	{"hop_round_trip_asleep/go_channel_between_locked_threads", 2, 1, func(b *testing.B) { pingPong(b, 0, true) }},
	{"pool_spawn_1t_1m/go_wait_group", 1, 1_000_000, func(b *testing.B) { spawn(b, 1_000_000) }},
	{"pool_spawn_2t_1m/go_wait_group", 2, 1_000_000, func(b *testing.B) { spawn(b, 1_000_000) }},
	{"pool_spawn_1t_1k/go_wait_group", 1, 1_000, func(b *testing.B) { spawn(b, 1_000) }},
	{"pool_spawn_2t_1k/go_wait_group", 2, 1_000, func(b *testing.B) { spawn(b, 1_000) }},
	{"pool_fib25_1t/go_wait_group", 1, callsOfFib25, fib25},
	{"pool_fib25_2t/go_wait_group", 2, callsOfFib25, fib25},
	{"pool_skynet_1t/go_channel", 1, 111_111, skynet100k},
	{"pool_skynet_2t/go_channel", 2, 111_111, skynet100k},
	{"channel_uncontended/go_channel", 1, 1, uncontended},
	{"channel_stream/go_channel", 1, 1, func(b *testing.B) { stream(b, 64) }},
	{"channel_rendezvous/go_channel", 1, 1, func(b *testing.B) { stream(b, 0) }},
	{"channel_stream_2_threads/go_channel_any_thread", 2, 1, func(b *testing.B) { stream(b, 64) }},
	{"object_pair/go_sync_pool", 1, 1, pooled},
	{"object_pair_2_threads/go_sync_pool", 2, 1, pooledByTwo},
	{"object_64/go_sync_pool", 1, 64, pooled64},
}

func TestRows(t *testing.T) {
	fmt.Println(runtime.Version())
	for _, row := range rows {
		fmt.Println(row.name)
	}
}

func BenchmarkRows(b *testing.B) {
	for _, row := range rows {
		row := row
		b.Run(row.name, func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(row.procs))
			b.ResetTimer()
			from := processorTime()
			row.run(b)
			if row.procs == 1 && !strings.HasPrefix(row.name, "pool_") {
				b.ReportMetric(float64(processorTime()-from)/float64(b.N), "ns/op")
			}
			b.ReportMetric(float64(row.items), "items/op")
		})
	}
}

// What all threads of the process have used, in nanoseconds.
func processorTime() int64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return used.Utime.Nano() + used.Stime.Nano()
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
			b.Fatal("the deadline passed")
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
	expect(b, sum, b.N)
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
	expect(b, <-sums, b.N)
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
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
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
		expect(b, fib(25), 75_025)
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
		expect(b, <-sum, 4_999_950_000)
	}
}

func expect(b *testing.B, done, expected int) {
	if done != expected {
		b.Fatal("the work was not done")
	}
}
