// SPDX-License-Identifier: MIT
package rows;

final class Expect {
    static void expect(boolean done) {
        if (!done) {
            throw new IllegalStateException("the work was not done");
        }
    }

    private Expect() {}
}
