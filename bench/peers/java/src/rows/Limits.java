// SPDX-License-Identifier: MIT
package rows;

import static rows.Expect.expect;

import io.github.resilience4j.bulkhead.Bulkhead;
import io.github.resilience4j.bulkhead.BulkheadConfig;
import io.github.resilience4j.ratelimiter.RateLimiter;
import io.github.resilience4j.ratelimiter.RateLimiterConfig;
import java.time.Duration;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.State;

/** The rate limiter fills up when its period begins. */
@State(Scope.Benchmark)
public class Limits {
    private final RateLimiter plenty = limiter(1_000_000_000, Duration.ofSeconds(1));
    private final RateLimiter nothing = limiter(1, Duration.ofDays(1));
    private final Bulkhead slots = bulkhead(8);
    private final Bulkhead full = bulkhead(1);

    public Limits() {
        nothing.acquirePermission();
        full.tryAcquirePermission();
    }

    static RateLimiter limiter(int permits, Duration period) {
        return RateLimiter.of("limiter", RateLimiterConfig.custom()
                .limitForPeriod(permits)
                .limitRefreshPeriod(period)
                .timeoutDuration(Duration.ZERO)
                .build());
    }

    static Bulkhead bulkhead(int slots) {
        return Bulkhead.of("bulkhead", BulkheadConfig.custom()
                .maxConcurrentCalls(slots)
                .maxWaitDuration(Duration.ZERO)
                .build());
    }

    @Benchmark
    public void accept() {
        expect(plenty.acquirePermission());
    }

    @Benchmark
    public void refuse() {
        expect(!nothing.acquirePermission());
    }

    @Benchmark
    public void place() {
        expect(slots.tryAcquirePermission());
        slots.releasePermission();
    }

    @Benchmark
    public void noPlace() {
        expect(!full.tryAcquirePermission());
    }
}
