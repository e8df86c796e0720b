// SPDX-License-Identifier: MIT
package rows;

import static rows.Expect.expect;

import io.github.resilience4j.circuitbreaker.CircuitBreaker;
import io.github.resilience4j.circuitbreaker.CircuitBreakerConfig;
import io.github.resilience4j.circuitbreaker.CircuitBreakerConfig.SlidingWindowSynchronizationStrategy;
import io.github.resilience4j.circuitbreaker.CircuitBreakerConfig.SlidingWindowType;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.State;

/** A breaker of Resilience4j always counts slow calls; the rows that are not about them do not read a clock for it. */
@State(Scope.Benchmark)
public class Breakers {
    private final CircuitBreaker lastCalls = breaker(SlidingWindowType.COUNT_BASED, 100, false);
    private final CircuitBreaker lastCallsLockFree = breaker(SlidingWindowType.COUNT_BASED, 100, true);
    private final CircuitBreaker last = breaker(SlidingWindowType.TIME_BASED, 10, false);
    private final CircuitBreaker lastLockFree = breaker(SlidingWindowType.TIME_BASED, 10, true);
    private final CircuitBreaker open = breaker(SlidingWindowType.COUNT_BASED, 100, false);

    public Breakers() {
        open.transitionToOpenState();
    }

    static CircuitBreaker breaker(SlidingWindowType type, int size, boolean lockFree) {
        return CircuitBreaker.of("breaker", CircuitBreakerConfig.custom()
                .slidingWindow(size, 20, type, lockFree ? SlidingWindowSynchronizationStrategy.LOCK_FREE
                                                        : SlidingWindowSynchronizationStrategy.SYNCHRONIZED)
                .slowCallDurationThreshold(Duration.ofSeconds(1))
                .waitDurationInOpenState(Duration.ofDays(1))
                .build());
    }

    private static void succeed(CircuitBreaker breaker) {
        expect(breaker.tryAcquirePermission());
        breaker.onSuccess(0, TimeUnit.NANOSECONDS);
    }

    private static void succeedInTime(CircuitBreaker breaker) {
        expect(breaker.tryAcquirePermission());
        long begin = breaker.getCurrentTimestamp();
        breaker.onSuccess(breaker.getCurrentTimestamp() - begin, breaker.getTimestampUnit());
    }

    @Benchmark
    public void lastCalls() {
        succeed(lastCalls);
    }

    @Benchmark
    public void lastCallsLockFree() {
        succeed(lastCallsLockFree);
    }

    @Benchmark
    public void lastCallsSlow() {
        succeedInTime(lastCalls);
    }

    @Benchmark
    public void last() {
        succeed(last);
    }

    @Benchmark
    public void lastLockFree() {
        succeed(lastLockFree);
    }

    @Benchmark
    public void lastSlow() {
        succeedInTime(last);
    }

    @Benchmark
    public void refusal() {
        expect(!open.tryAcquirePermission());
    }
}
