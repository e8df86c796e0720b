// SPDX-License-Identifier: MIT
#pragma once

// Walks through every interleaving of a few actors' atomic steps, for hand-written models of a lock-free word: small
// enough to be complete, which no stress test is.

#include <cstddef>
#include <set>
#include <string>

namespace small_steps {

enum class step {
    moved,    // one atomic step was taken
    blocked,  // has to wait for somebody else; nothing has changed
    ended,    // has nothing left to do; nothing has changed
};

struct walked {
    std::size_t states = 0;   // that can be reached
    std::size_t endings = 0;  // in which every actor has ended
    std::string fault;        // what is wrong, and which actors took the steps up to there; empty: nothing
};

/// Has an actor, whose place in its program `at` is, go on at `to`.
template <class Place>
step go(Place& at, int to) {
    at = static_cast<Place>(to);
    return step::moved;
}

/// A model is a value with a total order and
///  - `static constexpr int actors`, `step take(int actor)`,
///  - `const char* broken() const`: null in a good state; asked after each step,
///  - `const char* unfinished() const`: null in a good ending.
template <class Model>
walked walk(const Model& start) {
    struct walker {
        walked result;
        std::set<Model> seen;
        std::string path;

        void visit(const Model& m) {
            if (!seen.insert(m).second) return;
            bool moved = false, waiting = false;
            for (int actor = 0; actor < Model::actors && result.fault.empty(); ++actor) {
                Model next = m;
                const step took = next.take(actor);
                waiting = waiting || took == step::blocked;
                if (took != step::moved) continue;
                moved = true;
                path.push_back(static_cast<char>('0' + actor));
                if (const char* what = next.broken()) fail(what);
                else visit(next);
                path.pop_back();
            }
            if (moved || !result.fault.empty()) return;
            if (waiting) fail("somebody waits for ever");
            else if (const char* what = m.unfinished()) fail(what);
            else ++result.endings;
        }
        void fail(const char* what) { result.fault = std::string(what) + ", after the steps of " + path; }
    };
    walker w;
    w.visit(start);
    w.result.states = w.seen.size();
    return w.result;
}

/// What is wrong with a model, of which one variant is right and the others are wrong on purpose.
template <class Model>
std::string fault_of(decltype(Model::variant) variant) {
    Model m;
    m.variant = variant;
    return walk(m).fault;
}

}  // namespace small_steps
