// The part of AMD's AIE API that the kernels use, for the CPU: same names, same meaning, the core's arithmetic.
// Vectors and accumulators are GCC vectors, so that the CPU build is fast enough to simulate whole encoders.
// The documentation of every name is AMD's "AIE API User Guide"; what is written here is how the CPU does it.
#pragma once

#include <type_traits>
#include <utility>

#include "adder.hpp"
#include "host.hpp"
#include "rounding.hpp"

struct bfloat16 {
    uint16_t bits;
    bfloat16() = default;
    // Rounded to nearest even: constants of the kernels are exact anyway.
    constexpr bfloat16(float x)
        : bits(uint16_t((std::bit_cast<uint32_t>(x) + 0x7fff + (std::bit_cast<uint32_t>(x) >> 16 & 1)) >> 16)) {}
};
struct accfloat {};
struct accauto {};

#ifndef AIE_INLINE  // the sanitized build leaves it to the compiler, which is much faster then
#define AIE_INLINE inline __attribute__((always_inline))
#endif

namespace aie {

namespace detail {
template <class T> struct lane { using type = T; };
template <> struct lane<bfloat16> { using type = uint16_t; };
template <class T, unsigned N> using raw_t = host::lanes<typename lane<T>::type, N>;

template <unsigned N> AIE_INLINE raw_t<float, N> widen(raw_t<bfloat16, N> v) {
    return (raw_t<float, N>)(__builtin_convertvector(v, raw_t<uint32_t, N>) << 16);
}
// Registers are 512 bits: what a wider value costs in instructions.
constexpr unsigned registers(unsigned bytes) { return bytes <= 64 ? 1 : bytes / 64; }

// Vector registers and accumulators are two register files, and a copy between them takes the move slot (counting
// builds). What comes from memory or from a broadcast can arrive in either.
enum class home { either, vectors, accumulators };
template <class V> AIE_INLINE V placed(V x, [[maybe_unused]] home at) {
#ifdef AIE_HOST_COUNT
    x.at = at;
#endif
    return x;
}
template <class V> AIE_INLINE V made(V x, [[maybe_unused]] int32_t id) {
#ifdef AIE_HOST_COUNT
    x.id = id;
    if constexpr (requires { x.v; })  // what a fresh result takes of a register
        if (id >= 0 && size_t(id) + 1 == host::trace.size() && host::trace[id].what != host::op_load) host::trace[id].bytes = sizeof x.v;
#endif
    return x;
}
template <class V> AIE_INLINE int32_t id_of([[maybe_unused]] const V &x) {
#ifdef AIE_HOST_COUNT
    return x.id;
#else
    return -1;
#endif
}
template <class V> AIE_INLINE home home_of([[maybe_unused]] const V &x) {
#ifdef AIE_HOST_COUNT
    return x.at;
#else
    return home::either;
#endif
}
// The value is used by an instruction of the move slot: copied, once, if it was in accumulators.
template <class V> AIE_INLINE void as_vector([[maybe_unused]] const V &x) {
#ifdef AIE_HOST_COUNT
    if (x.at == home::accumulators) {
        host::spend(host::move, registers(sizeof x.v)), x.at = home::vectors;
        x.id = host::note(host::op_copy, registers(sizeof x.v), x.id);
    }
#endif
}
}  // namespace detail
using detail::as_vector, detail::home, detail::home_of, detail::id_of, detail::made, detail::placed;

template <unsigned N> struct mask {
    detail::raw_t<int32_t, N> lanes;  // all ones where set
#ifdef AIE_HOST_COUNT
    int32_t id = -1;
#endif

    // Masks live in scalar registers.
    AIE_INLINE mask operator|(const mask &other) const {
        host::spend(host::scalar);
        return made(mask{lanes | other.lanes}, host::note(host::op_mask, 1, id_of(*this), id_of(other)));
    }
    AIE_INLINE bool full() const {
        host::spend(host::scalar);
        host::note(host::op_mask, 1, id_of(*this));
        int32_t all = -1;
        for (unsigned i = 0; i < N; ++i) all &= lanes[i];
        return all;
    }
};

template <class T, unsigned N> struct vector {
    using value_type = T;
    using raw = detail::raw_t<T, N>;
    static constexpr unsigned size() { return N; }
    raw v;
#ifdef AIE_HOST_COUNT
    mutable home at = home::vectors;
    mutable int32_t id = -1;
#endif

    // Extracting and inserting aligned parts is register naming on the core.
    template <unsigned M> AIE_INLINE vector<T, M> extract(unsigned i) const {
        vector<T, M> r;
        for (unsigned l = 0; l < M; ++l) r.v[l] = v[i * M + l];
        return made(placed(r, home_of(*this)), id_of(*this));
    }
    template <class U> AIE_INLINE vector<U, N * sizeof(T) / sizeof(U)> cast_to() const {
        return made(placed(vector<U, N * sizeof(T) / sizeof(U)>{(detail::raw_t<U, N * sizeof(T) / sizeof(U)>)v}, home_of(*this)), id_of(*this));
    }
    AIE_INLINE auto get(unsigned i) const { return v[i]; }
    AIE_INLINE const vector &to_native() const { return *this; }
};

template <class Tag, unsigned N> struct accum {
    using value_type = Tag;
    using raw = detail::raw_t<float, N>;
    static constexpr unsigned size() { return N; }
    raw v;
#ifdef AIE_HOST_COUNT
    home at = home::accumulators;
    int32_t id = -1;
#endif

    accum() = default;
    AIE_INLINE explicit accum(raw r) : v(r) {}
    AIE_INLINE accum(const vector<float, N> &x) : v(x.v) {
#ifdef AIE_HOST_COUNT
        if (x.at == home::vectors) host::spend(host::move, N / 16), id = host::note(host::op_copy, N / 16, x.id);
        else at = x.at, id = x.at == home::either ? host::note(host::op_accumulator, 0, x.id) : x.id;
#endif
    }
    // A bf16 vector widens on its way into the accumulator.
    AIE_INLINE accum(const vector<bfloat16, N> &x) : v(detail::widen<N>(x.v)) {
        host::spend(host::move, N / 16);
#ifdef AIE_HOST_COUNT
        id = host::note(host::op_widen, N / 16, x.id);
#endif
    }

    template <class T> AIE_INLINE vector<T, N> to_vector() const {
        if constexpr (std::is_same_v<T, float>) {
            return made(placed(vector<float, N>{v}, home_of(*this)), id_of(*this));
        } else {
            static_assert(std::is_same_v<T, bfloat16>);
            host::spend(host::store, N / 16);  // the conversion sits in the store unit's path
            return made(vector<T, N>{host::round_to_bfloat16<N>(v, host::core.rounding)}, host::note(host::op_round, N / 16, id_of(*this)));
        }
    }
    AIE_INLINE const accum &to_native() const { return *this; }
    template <unsigned M> AIE_INLINE accum<Tag, M> extract(unsigned i) const {
        return accum<Tag, M>(to_vector<float>().template extract<M>(i));
    }
};

enum class rounding_mode : unsigned {
    floor = 0, ceil = 1, symmetric_floor = 2, symmetric_ceil = 3, negative_inf = 8, positive_inf = 9,
    symmetric_zero = 10, symmetric_inf = 11, conv_even = 12, conv_odd = 13,
};
AIE_INLINE void set_rounding(rounding_mode m) {
    host::spend(host::scalar);
    host::core.rounding = unsigned(m);
}

// ---- memory ----
template <unsigned N, class T> AIE_INLINE vector<T, N> load_v(const T *p) {
    host::spend_load((N * sizeof(T) + 31) / 32, std::is_same_v<T, float>);
    vector<T, N> r{};
    if (host::access(p, N * sizeof(T), false)) __builtin_memcpy(&r.v, p, sizeof r.v);
    return made(placed(r, home::either), host::note_memory(host::op_load, p, N * sizeof(T)));
}
template <class T, unsigned N> AIE_INLINE void store_v(T *p, const vector<T, N> &x) {
    host::spend(host::store, (N * sizeof(T) + 31) / 32);
    host::note_memory(host::op_store, p, N * sizeof(T), id_of(x));
    if (host::access(p, N * sizeof(T), true)) __builtin_memcpy(p, &x.v, sizeof x.v);
}

// ---- initialisation, reshaping ----
// One register, named twice where the vector is wider.
template <class T, unsigned N> AIE_INLINE vector<T, N> broadcast(T a) {
    host::spend(host::move);
    const auto lane = std::bit_cast<typename detail::lane<T>::type>(a);
    uint32_t key = 0;
    __builtin_memcpy(&key, &lane, sizeof lane);
    return made(placed(vector<T, N>{detail::raw_t<T, N>{} + lane}, home::either), host::note(host::op_constant, 1, -1, -1, -1, key));
}
template <class T, unsigned N> AIE_INLINE vector<T, N> zeros() {
    host::spend(host::move, detail::registers(N * sizeof(T)));
    return made(placed(vector<T, N>{detail::raw_t<T, N>{}}, home::either), host::note(host::op_constant, 1));
}
// Naming two registers, or two halves that were written where they are; one value in both halves is a copy.
template <class T, unsigned N> AIE_INLINE vector<T, 2 * N> concat(const vector<T, N> &a, const vector<T, N> &b) {
    vector<T, 2 * N> r;
    const bool copied = &a == &b && sizeof(r.v) <= 64;
    if (copied) host::spend(host::move);
    [&]<unsigned... i>(std::integer_sequence<unsigned, i...>) {
        r.v = __builtin_shufflevector(a.v, b.v, i...);
    }(std::make_integer_sequence<unsigned, 2 * N>());
    return made(placed(r, home_of(a) == home::either ? home_of(b) : home_of(a)),
                copied ? host::note(host::op_move, 1, id_of(a)) : host::note(host::op_name, 0, id_of(a), id_of(b)));
}
template <class T, unsigned N>
AIE_INLINE vector<T, 4 * N> concat(const vector<T, N> &a, const vector<T, N> &b, const vector<T, N> &c, const vector<T, N> &d) {
    return concat(concat(a, b), concat(c, d));
}
template <class T, unsigned N> AIE_INLINE vector<T, N> transpose(const vector<T, N> &x, unsigned rows, unsigned cols) {
    as_vector(x);
    host::spend(host::move, detail::registers(N * sizeof(T)));
    vector<T, N> r;
    for (unsigned i = 0; i < N; ++i) r.v[i] = x.v[i % rows * cols + i / rows];
    return made(r, host::note(host::op_move, detail::registers(N * sizeof(T)), id_of(x)));
}
template <class T, unsigned N> AIE_INLINE vector<T, N> shuffle_down_rotate(const vector<T, N> &x, unsigned n) {
    as_vector(x);
    host::spend(host::move, detail::registers(N * sizeof(T)));
    vector<T, N> r;
    for (unsigned i = 0; i < N; ++i) r.v[i] = x.v[(i + n) % N];
    return made(r, host::note(host::op_move, detail::registers(N * sizeof(T)), id_of(x)));
}
template <class T, unsigned N>
AIE_INLINE std::pair<vector<T, N>, vector<T, N>> interleave_zip(const vector<T, N> &a, const vector<T, N> &b, unsigned chunk) {
    as_vector(a), as_vector(b);
    host::spend(host::move, 2 * N * sizeof(T) <= 64 ? 1 : 2);
    vector<T, N> lo, hi;
    for (unsigned i = 0; i < N; ++i) {
        const unsigned j = i + N, first = i / (2 * chunk) * chunk + i % chunk, second = j / (2 * chunk) * chunk + j % chunk;
        lo.v[i] = i / chunk % 2 ? b.v[first] : a.v[first];
        hi.v[i] = j / chunk % 2 ? b.v[second] : a.v[second];
    }
    const bool one = 2 * N * sizeof(T) <= 64;
    const int32_t first = host::note(host::op_move, 1, id_of(a), id_of(b));
    return {made(lo, first), made(hi, one ? first : host::note(host::op_move, 1, id_of(a), id_of(b)))};
}
template <class T, unsigned N> AIE_INLINE vector<T, N / 2> filter_even(const vector<T, N> &x, unsigned chunk = 1) {
    as_vector(x);
    host::spend(host::move, detail::registers(N / 2 * sizeof(T)));
    vector<T, N / 2> r;
    for (unsigned i = 0; i < N / 2; ++i) r.v[i] = x.v[i / chunk * 2 * chunk + i % chunk];
    return made(r, host::note(host::op_move, detail::registers(N / 2 * sizeof(T)), id_of(x)));
}

template <class T, unsigned N> AIE_INLINE vector<T, N / 2> filter_odd(const vector<T, N> &x, unsigned chunk = 1) {
    as_vector(x);
    host::spend(host::move, detail::registers(N / 2 * sizeof(T)));
    vector<T, N / 2> r;
    for (unsigned i = 0; i < N / 2; ++i) r.v[i] = x.v[i / chunk * 2 * chunk + chunk + i % chunk];
    return made(r, host::note(host::op_move, detail::registers(N / 2 * sizeof(T)), id_of(x)));
}

// ---- integer and bit operations, comparison, selection ----
#define AIE_HOST_BINARY(name, expression)                                                          \
    template <class T, unsigned N> requires(std::is_integral_v<T>)                                 \
    AIE_INLINE vector<T, N> name(const vector<T, N> &a, const vector<T, N> &b) {                   \
        as_vector(a), as_vector(b);                                                                \
        host::spend(host::move, detail::registers(N * sizeof(T)));                                 \
        return made(vector<T, N>{expression},                                                      \
                    host::note(host::op_move, detail::registers(N * sizeof(T)), id_of(a), id_of(b))); \
    }
AIE_HOST_BINARY(add, (detail::raw_t<T, N>)((detail::raw_t<std::make_unsigned_t<T>, N>)a.v + (detail::raw_t<std::make_unsigned_t<T>, N>)b.v))
AIE_HOST_BINARY(sub, (detail::raw_t<T, N>)((detail::raw_t<std::make_unsigned_t<T>, N>)a.v - (detail::raw_t<std::make_unsigned_t<T>, N>)b.v))
AIE_HOST_BINARY(max, a.v > b.v ? a.v : b.v)
AIE_HOST_BINARY(min, a.v < b.v ? a.v : b.v)
AIE_HOST_BINARY(bit_and, a.v & b.v)
AIE_HOST_BINARY(bit_or, a.v | b.v)
#undef AIE_HOST_BINARY

// A shift of 32-bit lanes passes through an accumulator: one operation in, one out.
template <unsigned N> AIE_INLINE vector<int32_t, N> logical_downshift(const vector<int32_t, N> &x, unsigned n) {
    as_vector(x);
    host::spend(host::move);
    host::spend(host::store);
    const int32_t in = host::note(host::op_move, 1, id_of(x));
    return made(vector<int32_t, N>{(detail::raw_t<int32_t, N>)((detail::raw_t<uint32_t, N>)x.v >> n)}, host::note(host::op_round, 1, in));
}
template <unsigned N> AIE_INLINE mask<N> lt(const vector<int32_t, N> &a, const vector<int32_t, N> &b) {
    as_vector(a), as_vector(b);
    host::spend(host::move, N / 16);
    return made(mask<N>{a.v < b.v}, host::note(host::op_compare, N / 16, id_of(a), id_of(b)));
}
template <unsigned N> AIE_INLINE mask<N> eq(const vector<int32_t, N> &a, const vector<int32_t, N> &b) {
    as_vector(a), as_vector(b);
    host::spend(host::move, N / 16);
    return made(mask<N>{a.v == b.v}, host::note(host::op_compare, N / 16, id_of(a), id_of(b)));
}
// a where the mask is clear, b where it is set.
template <class T, unsigned N> AIE_INLINE vector<T, N> select(const vector<T, N> &a, const vector<T, N> &b, const mask<N> &m) {
    as_vector(a), as_vector(b);
    host::spend(host::move, detail::registers(N * sizeof(T)));
    const int32_t id = host::note(host::op_move, detail::registers(N * sizeof(T)), id_of(a), id_of(b), id_of(m));
    if constexpr (sizeof(T) == 4) {
        using bits = detail::raw_t<int32_t, N>;
        return made(vector<T, N>{(detail::raw_t<T, N>)(m.lanes ? (bits)b.v : (bits)a.v)}, id);
    } else {
        static_assert(sizeof(T) == 2);
        const auto narrow = __builtin_convertvector(m.lanes, detail::raw_t<int16_t, N>);
        using bits = detail::raw_t<int16_t, N>;
        return made(vector<T, N>{(detail::raw_t<T, N>)(narrow ? (bits)b.v : (bits)a.v)}, id);
    }
}

// ---- fp32 in accumulators ----
template <unsigned N> AIE_INLINE accum<accfloat, N> add(const accum<accfloat, N> &a, const accum<accfloat, N> &b) {
    host::spend(host::multiply, N / 16);
    const int32_t id = host::note(host::op_multiply, N / 16, id_of(a), id_of(b));
    if (detail::exact()) return made(accum<accfloat, N>(detail::exact_lanes<N>(a.v, b.v, false)), id);
    return made(accum<accfloat, N>(a.v + b.v), id);
}
template <unsigned N> AIE_INLINE accum<accfloat, N> sub(const accum<accfloat, N> &a, const accum<accfloat, N> &b) {
    host::spend(host::multiply, N / 16);
    const int32_t id = host::note(host::op_multiply, N / 16, id_of(a), id_of(b));
    if (detail::exact()) return made(accum<accfloat, N>(detail::exact_lanes<N>(a.v, b.v, true)), id);
    return made(accum<accfloat, N>(a.v - b.v), id);
}
template <unsigned N> AIE_INLINE accum<accfloat, N> mul(const vector<bfloat16, N> &a, const vector<bfloat16, N> &b) {
    host::spend(host::multiply, N / 16);
    return made(accum<accfloat, N>(detail::widen<N>(a.v) * detail::widen<N>(b.v)), host::note(host::op_multiply, N / 16, -1, id_of(a), id_of(b)));
}
template <unsigned N>
AIE_INLINE accum<accfloat, N> mac(const accum<accfloat, N> &c, const vector<bfloat16, N> &a, const vector<bfloat16, N> &b) {
    host::spend(host::multiply, N / 16);
    const int32_t id = host::note(host::op_multiply, N / 16, id_of(c), id_of(a), id_of(b));
    if (detail::exact()) return made(accum<accfloat, N>(detail::exact_lanes<N, 1>(c.v, a.v, b.v)), id);
    return made(accum<accfloat, N>(c.v + detail::widen<N>(a.v) * detail::widen<N>(b.v)), id);
}
template <unsigned N>
AIE_INLINE accum<accfloat, N> msc(const accum<accfloat, N> &c, const vector<bfloat16, N> &a, const vector<bfloat16, N> &b) {
    host::spend(host::multiply, N / 16);
    const int32_t id = host::note(host::op_multiply, N / 16, id_of(c), id_of(a), id_of(b));
    if (detail::exact()) return made(accum<accfloat, N>(detail::exact_lanes<N, 1>(c.v, a.v, b.v, true)), id);
    return made(accum<accfloat, N>(c.v - detail::widen<N>(a.v) * detail::widen<N>(b.v)), id);
}

}  // namespace aie

// Intrinsics of the core that the API does not name: lane i takes the products of lanes i and i + 16, in one operation.
AIE_INLINE auto mac_elem_16_2(const aie::vector<bfloat16, 32> &a, const aie::vector<bfloat16, 32> &b, const aie::accum<accfloat, 16> &c) {
    aie::host::spend(aie::host::multiply);
    const int32_t id = aie::host::note(aie::host::op_multiply, 1, aie::id_of(c), aie::id_of(a), aie::id_of(b));
    if (aie::detail::exact()) return aie::made(aie::accum<accfloat, 16>(aie::detail::exact_lanes<16, 2>(c.v, a.v, b.v)), id);
    const auto product = [&]<unsigned... i>(std::integer_sequence<unsigned, i...>, auto half) {
        return aie::detail::widen<16>(__builtin_shufflevector(a.v, a.v, (half + i)...)) *
               aie::detail::widen<16>(__builtin_shufflevector(b.v, b.v, (half + i)...));
    };
    constexpr auto sixteen = std::make_integer_sequence<unsigned, 16>();
    constexpr std::integral_constant<unsigned, 0> low;
    constexpr std::integral_constant<unsigned, 16> high;
    return aie::made(aie::accum<accfloat, 16>(c.v + product(sixteen, low) + product(sixteen, high)), id);
}
AIE_INLINE auto mul_elem_16_2(const aie::vector<bfloat16, 32> &a, const aie::vector<bfloat16, 32> &b) {
    return mac_elem_16_2(a, b, aie::accum<accfloat, 16>(aie::detail::raw_t<float, 16>{}));
}

#include "mmul.hpp"
