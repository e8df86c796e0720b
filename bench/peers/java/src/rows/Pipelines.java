// SPDX-License-Identifier: MIT
package rows;

import static rows.Expect.expect;

import io.github.resilience4j.circuitbreaker.CallNotPermittedException;
import io.github.resilience4j.circuitbreaker.CircuitBreaker;
import io.github.resilience4j.circuitbreaker.CircuitBreakerConfig.SlidingWindowType;
import io.github.resilience4j.decorators.Decorators;
import io.github.resilience4j.retry.Retry;
import io.github.resilience4j.retry.RetryConfig;
import java.time.Duration;
import java.util.function.Supplier;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.CompilerControl;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.State;

/** A plain function, called through the policies that the pipeline of C++ has; its retries have no budget. */
@State(Scope.Benchmark)
public class Pipelines {
    private final CircuitBreaker open = Breakers.breaker(SlidingWindowType.COUNT_BASED, 100, false);
    private final Supplier<Integer> five = Decorators.ofSupplier(Pipelines::function)
            .withBulkhead(Limits.bulkhead(16))
            .withRateLimiter(Limits.limiter(1_000_000_000, Duration.ofSeconds(1)))
            .withCircuitBreaker(Breakers.breaker(SlidingWindowType.COUNT_BASED, 100, false))
            .withRetry(Retry.of("retry", RetryConfig.custom().maxAttempts(3).build()))
            .withFallback(failure -> -1)
            .decorate();
    private final Supplier<Integer> closedTo = CircuitBreaker.decorateSupplier(open, Pipelines::function);

    public Pipelines() {
        open.transitionToOpenState();
    }

    @CompilerControl(CompilerControl.Mode.DONT_INLINE)
    public static int function() {
        return 1;
    }

    @Benchmark
    public void five() {
        expect(five.get() == 1);
    }

    @Benchmark
    public void refusal() {
        boolean refused = false;
        try {
            closedTo.get();
        } catch (CallNotPermittedException e) {
            refused = true;
        }
        expect(refused);
    }
}
