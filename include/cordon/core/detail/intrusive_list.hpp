// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/detail/config.hpp>

#include <cstddef>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// What an element of an intrusive list derives from.
class list_hook {
public:
    list_hook() = default;
    list_hook(const list_hook&) = delete;
    list_hook& operator=(const list_hook&) = delete;

    [[nodiscard]] bool linked() const noexcept { return next_ != nullptr; }

private:
    template <class T>
    friend class intrusive_list;
    list_hook* prev_ = nullptr;
    list_hook* next_ = nullptr;
};

/// A list of elements that somebody else owns, in the order of their arrival. Not synchronized.
template <class T>
class intrusive_list {
public:
    intrusive_list() noexcept { ends_.prev_ = ends_.next_ = &ends_; }
    intrusive_list(const intrusive_list&) = delete;
    intrusive_list& operator=(const intrusive_list&) = delete;

    [[nodiscard]] bool empty() const noexcept { return ends_.next_ == &ends_; }
    [[nodiscard]] T& front() const noexcept { return static_cast<T&>(*ends_.next_); }
    [[nodiscard]] T& back() const noexcept { return static_cast<T&>(*ends_.prev_); }
    /// The one behind `element`, which is in this list; null behind the last.
    [[nodiscard]] T* after(const T& element) const noexcept {
        list_hook* const next = static_cast<const list_hook&>(element).next_;
        return next == &ends_ ? nullptr : static_cast<T*>(next);
    }

    void push_back(T& element) noexcept { insert(element, *ends_.prev_); }
    void push_front(T& element) noexcept { insert(element, ends_); }
    /// Takes the element out; does nothing if it is in no list.
    static void remove(T& element) noexcept {
        list_hook& e = element;
        if (!e.linked()) return;
        e.prev_->next_ = e.next_;
        e.next_->prev_ = e.prev_;
        e.prev_ = e.next_ = nullptr;
    }
    T& pop_front() noexcept {
        T& first = front();
        remove(first);
        return first;
    }
    /// Cost:          linear; of a list that others wait for, have a `counted_list`
    [[nodiscard]] std::size_t size() const noexcept {
        std::size_t n = 0;
        for (const list_hook* e = ends_.next_; e != &ends_; e = e->next_) ++n;
        return n;
    }

private:
    static void insert(T& element, list_hook& behind) noexcept {
        list_hook& e = element;
        e.prev_ = &behind;
        e.next_ = behind.next_;
        behind.next_->prev_ = &e;
        behind.next_ = &e;
    }

    list_hook ends_;
};

/// A list that knows how many are in it. An element is removed through the list that it is in.
template <class T>
class counted_list {
public:
    [[nodiscard]] bool empty() const noexcept { return elements_.empty(); }
    [[nodiscard]] T& front() const noexcept { return elements_.front(); }
    [[nodiscard]] T& back() const noexcept { return elements_.back(); }
    [[nodiscard]] T* after(const T& element) const noexcept { return elements_.after(element); }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

    void push_back(T& element) noexcept {
        elements_.push_back(element);
        ++size_;
    }
    void push_front(T& element) noexcept {
        elements_.push_front(element);
        ++size_;
    }
    /// Does nothing if the element is in no list.
    void remove(T& element) noexcept {
        if (!element.linked()) return;
        elements_.remove(element);
        --size_;
    }
    T& pop_front() noexcept {
        --size_;
        return elements_.pop_front();
    }

private:
    intrusive_list<T> elements_;
    std::size_t size_ = 0;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
