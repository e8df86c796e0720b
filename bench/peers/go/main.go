// SPDX-License-Identifier: MIT

// Rows in Go, under the names of the figures of C++ that do the same; tools/bench/peer_rows.py says how they are asked
// for. Times are taken as those of C++: of the processor where one thread runs, by the wall where two meet and for pools.
//
// Without tags these are the rows of the standard library; with `x_time` those of x/time/rate too; with `modules` those of
// the modules in go.mod instead.
package main

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A row does its work b.N times; items is how many operations one of these is, and procs how many threads run Go code.
type benchmark struct {
	name  string
	procs int
	items int
	run   func(b *testing.B)
}

// Every other file adds its own.
var rows []benchmark

func main() {
	testing.Init()
	list := flag.Bool("list", false, "say the names of all rows")
	wanted := flag.String("run", "", "a figure, or figure/row")
	repetitions := flag.Int("repetitions", 1, "of each row")
	minTime := flag.Float64("min-time", 0, "seconds of a repetition; 0: the work is done once")
	flag.Parse()
	if *list {
		for _, row := range rows {
			fmt.Println(row.name)
		}
		return
	}
	benchtime := fmt.Sprintf("%gs", *minTime)
	if *minTime == 0 {
		benchtime = "1x"
	}
	if err := flag.Set("test.benchtime", benchtime); err != nil {
		fail(err)
	}
	var found []benchmark
	for _, row := range rows {
		if row.name == *wanted || strings.HasPrefix(row.name, *wanted+"/") {
			found = append(found, row)
		}
	}
	for i := 0; i < *repetitions; i++ {
		rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
		for _, row := range found {
			fmt.Println(strings.Split(row.name, "/")[1], nanoseconds(row))
		}
	}
}

// Of one operation.
func nanoseconds(row benchmark) float64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(row.procs))
	var used int64
	result := testing.Benchmark(func(b *testing.B) {
		from := processorTime()
		row.run(b)
		used = processorTime() - from
	})
	if row.procs > 1 || strings.HasPrefix(row.name, "pool_") {
		used = result.T.Nanoseconds()
	}
	return float64(used) / float64(result.N) / float64(row.items)
}

// What all threads of the process have used, in nanoseconds.
func processorTime() int64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return used.Utime.Nano() + used.Stime.Nano()
}

// Has as many goroutines do b.N times the work together.
func share(b *testing.B, goroutines int, work func(n int)) {
	var all sync.WaitGroup
	for g := 0; g < goroutines; g++ {
		n := b.N / goroutines
		if g == 0 {
			n += b.N % goroutines
		}
		all.Add(1)
		go func() {
			defer all.Done()
			work(n)
		}()
	}
	all.Wait()
}

// A row that asks a guard, by as many threads as the name of its figure says.
func guard(name string, ask func() bool) benchmark {
	threads := 1
	if strings.Contains(name, "_2_threads/") {
		threads = 2
	}
	return benchmark{name, threads, 1, func(b *testing.B) {
		share(b, threads, func(n int) {
			for i := 0; i < n; i++ {
				expect(ask())
			}
		})
	}}
}

func expect(done bool) {
	if !done {
		fail("the work was not done")
	}
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
