// SPDX-License-Identifier: MIT
package rows;

import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;
import org.openjdk.jmh.runner.options.VerboseMode;

/**
 * Rows in Java, under the names of the figures of C++ that do the same; tools/bench/peer_rows.py says how they are asked
 * for. JMH times them, by the wall, in a virtual machine of its own for each row, after 0.6 s of warming up.
 */
public final class Main {
    private record Row(String name, String method) {
        int threads() {
            return name.contains("_2_threads/") ? 2 : 1;
        }

        boolean isOf(String wanted) {
            return name.equals(wanted) || name.startsWith(wanted + "/");
        }
    }

    private static final List<Row> ROWS = List.of(
            new Row("breaker_last_calls/java_resilience4j", "Breakers.lastCalls"),
            new Row("breaker_last_calls/java_resilience4j_lock_free", "Breakers.lastCallsLockFree"),
            new Row("breaker_last_calls_slow/java_resilience4j", "Breakers.lastCallsSlow"),
            new Row("breaker_last/java_resilience4j", "Breakers.last"),
            new Row("breaker_last/java_resilience4j_lock_free", "Breakers.lastLockFree"),
            new Row("breaker_last_slow/java_resilience4j", "Breakers.lastSlow"),
            new Row("breaker_2_threads/java_resilience4j", "Breakers.lastCalls"),
            new Row("breaker_2_threads/java_resilience4j_lock_free", "Breakers.lastCallsLockFree"),
            new Row("breaker_2_threads/java_resilience4j_last", "Breakers.last"),
            new Row("breaker_2_threads/java_resilience4j_last_lock_free", "Breakers.lastLockFree"),
            new Row("breaker_refusal/java_resilience4j", "Breakers.refusal"),
            new Row("breaker_refusal_2_threads/java_resilience4j", "Breakers.refusal"),
            new Row("token_bucket_accept/java_resilience4j", "Limits.accept"),
            new Row("token_bucket_accept_2_threads/java_resilience4j", "Limits.accept"),
            new Row("token_bucket_refuse/java_resilience4j", "Limits.refuse"),
            new Row("token_bucket_refuse_2_threads/java_resilience4j", "Limits.refuse"),
            new Row("bulkhead/java_resilience4j", "Limits.place"),
            new Row("bulkhead_2_threads/java_resilience4j", "Limits.place"),
            new Row("bulkhead_refuse/java_resilience4j", "Limits.noPlace"),
            new Row("bulkhead_refuse_2_threads/java_resilience4j", "Limits.noPlace"),
            new Row("pipeline_on_a_thread/java_resilience4j", "Pipelines.five"),
            new Row("pipeline_refusal/java_resilience4j_thrown", "Pipelines.refusal"),
            new Row("pipeline_refusal_2_threads/java_resilience4j_thrown", "Pipelines.refusal"));

    public static void main(String[] options) throws RunnerException {
        if (Arrays.asList(options).contains("--list")) {
            ROWS.forEach(row -> System.out.println(row.name()));
            return;
        }
        String wanted = value(options, "--run");
        int repetitions = Integer.parseInt(value(options, "--repetitions"));
        double seconds = Double.parseDouble(value(options, "--min-time"));
        for (Row row : ROWS) {
            if (row.isOf(wanted)) {
                measure(row, repetitions, TimeValue.milliseconds(Math.max(10, Math.round(1000 * seconds))));
            }
        }
    }

    private static void measure(Row row, int repetitions, TimeValue each) throws RunnerException {
        var options = new OptionsBuilder()
                .include("^rows\\." + row.method().replace(".", "\\.") + "$")
                .mode(Mode.AverageTime)
                .timeUnit(TimeUnit.NANOSECONDS)
                .threads(row.threads())
                .forks(1)
                .warmupIterations(3)
                .warmupTime(TimeValue.milliseconds(200))
                .measurementIterations(repetitions)
                .measurementTime(each)
                .shouldFailOnError(true)
                .verbosity(VerboseMode.SILENT)
                .build();
        for (var iteration : new Runner(options).runSingle().getAggregatedResult().getIterationResults()) {
            // JMH says how long one thread needs for one operation.
            double nanoseconds = iteration.getPrimaryResult().getScore() / row.threads();
            System.out.println(row.name().split("/")[1] + " " + nanoseconds);
        }
    }

    private static String value(String[] options, String name) {
        int at = Arrays.asList(options).indexOf(name);
        if (at < 0 || at + 1 == options.length) {
            throw new IllegalArgumentException(name + " is missing");
        }
        return options[at + 1];
    }

    private Main() {}
}
