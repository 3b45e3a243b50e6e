// Loops that others traced on an NPU of this kind, written again from their description (mlir-aie, skills/, rows S..): the
// same loads, stores, products and moves per trip. Only counting builds compile this: what the model predicts for these
// loops is compared with what was traced (precedents.py). Nothing here runs on a core.
#include "common.hpp"

namespace {

template <class Body> void loop(const char *name, int trips, Body body) {
    for (int i = 0; i < trips; ++i) {
        const aie::host::trip trip(name);
        body(i);
    }
}

// S41: sixteen accumulators, k unrolled into the body that makes four by four tiles of C.
template <int K, bool transposed> void product(const bfloat16 *a, const bfloat16 *b, float *c) {
    using unit = aie::mmul<4, 8, 4, bfloat16, bfloat16, accauto>;
    loop("z", 4, [&](int z) { loop("j", 4, [&](int j) {
        const int n = 4 * z + j;
        unit s[4][4];
        const bfloat16 *pa = a + n / 4 * 4 * (K / 8) * 32, *pb = b + n % 4 * 4 * 32;
        float *pc = c + n * 256;
        for (int i = 0; i < 16; ++i) s[i / 4][i % 4] = unit(load_sums(pc + i * 16));
        for (int k = 0; k < K / 8; ++k) {
            v32 x[4], y[4];
            for (int i = 0; i < 4; ++i) {
                x[i] = aie::load_v<32>(pa + (i * (K / 8) + k) * 32);
                y[i] = aie::load_v<32>(pb + (k * 16 + i) * 32);
                if (transposed) y[i] = aie::transpose(y[i], 4, 8);
            }
            for (int i = 0; i < 16; ++i) s[i / 4][i % 4].mac(x[i / 4], y[i % 4]);
        }
        for (int i = 0; i < 16; ++i) store_sums(pc + i * 16, s[i / 4][i % 4].to_accum());
    }); });
}

void add(const bfloat16 *a, const bfloat16 *b, bfloat16 *c, int n) {
    loop("add", n / 16, [&](int i) {
        const sum16 x(aie::load_v<16>(a + 16 * i));
        aie::store_v(c + 16 * i, aie::mac(x, aie::load_v<16>(b + 16 * i), small(1)).to_vector<bfloat16>());
    });
}

void multiply(const bfloat16 *a, const bfloat16 *b, bfloat16 *c, int n) {
    loop("mul", n / 16, [&](int i) {
        aie::store_v(c + 16 * i, aie::mul(aie::load_v<16>(a + 16 * i), aie::load_v<16>(b + 16 * i)).to_vector<bfloat16>());
    });
}

aie::vector<int16_t, 32> load_words(const bfloat16 *p) { return aie::load_v<32>(p).cast_to<int16_t>(); }
void store_words(bfloat16 *p, const aie::vector<int16_t, 32> &x) { aie::store_v(p, x.cast_to<bfloat16>()); }

void relu(const bfloat16 *a, bfloat16 *c) {
    loop("relu", 32, [&](int i) { store_words(c + 32 * i, aie::max(load_words(a + 32 * i), aie::zeros<int16_t, 32>())); });
}

void convert_copy(const float *a, bfloat16 *c) {
    loop("convert", 64, [&](int i) { aie::store_v(c + 16 * i, load_sums(a + 16 * i).to_vector<bfloat16>()); });
}

void reduce_add(const int32_t *a, int32_t *c) {
    i16 sum = aie::zeros<int32_t, 16>();
    loop("reduce", 64, [&](int i) { sum = aie::add(sum, aie::load_v<16>(a + 16 * i)); });
    for (int n = 8; n; n /= 2) sum = aie::add(sum, aie::shuffle_down_rotate(sum, n));
    aie::store_v(c, sum);
}

void reduce_max(const bfloat16 *a, bfloat16 *c) {
    aie::vector<int16_t, 32> most = aie::zeros<int16_t, 32>();
    loop("reduce", 32, [&](int i) { most = aie::max(most, load_words(a + 32 * i)); });
    for (int n = 16; n; n /= 2) most = aie::max(most, aie::shuffle_down_rotate(most, n));
    store_words(c, most);
}

void bitwise_and(const bfloat16 *a, const bfloat16 *b, bfloat16 *c) {
    loop("and", 32, [&](int i) { store_words(c + 32 * i, aie::bit_and(load_words(a + 32 * i), load_words(b + 32 * i))); });
}

// S59: +0 where the bits less one are below a threshold.
void identity_epilogue(const float *a, bfloat16 *c, int32_t threshold) {
    loop("identity", 64, [&](int i) {
        const i16 x = bits(load_sums(a + 16 * i));
        const auto below = aie::lt(aie::sub(x, lanes(int32_t(1))), lanes(threshold));
        aie::store_v(c + 16 * i, from_bits(aie::select(x, lanes(int32_t(0)), below)).to_vector<bfloat16>());
    });
}

// S50: pairs of a row turned by an angle, one product per half.
void rope(const bfloat16 *a, const bfloat16 *table, bfloat16 *c) {
    loop("rope", 32, [&](int i) {
        const v32 x = aie::load_v<32>(a + 32 * i), t = aie::load_v<32>(table + 32 * i);
        const v32 apart = aie::transpose(x, 16, 2), angle = aie::transpose(t, 16, 2);
        const v32 turned = aie::shuffle_down_rotate(apart, 16);
        const auto negative = aie::add(angle.cast_to<int16_t>(), aie::broadcast<int16_t, 32>(int16_t(-32768)));
        const v16 even = mul_pairs(apart, negative.cast_to<bfloat16>()).to_vector<bfloat16>();
        const v16 odd = mul_pairs(turned, angle).to_vector<bfloat16>();
        aie::store_v(c + 32 * i, aie::transpose(aie::concat(even, odd), 2, 16));
    });
}

// S81, S82: two 8 x 8 blocks of bf16, or four rows of 4 x 4 blocks: twelve shuffles of two registers.
void transpose(const bfloat16 *a, bfloat16 *c, int trips) {
    loop("transpose", trips, [&](int i) {
        v32 r[4];
        for (int j = 0; j < 4; ++j) r[j] = aie::concat(aie::load_v<16>(a + 128 * i + 32 * j), aie::load_v<16>(a + 128 * i + 32 * j + 16));
        for (int stage = 0; stage < 3; ++stage) {
            const auto [p, q] = aie::interleave_zip(r[0], r[2], 1);
            const auto [s, t] = aie::interleave_zip(r[1], r[3], 1);
            r[0] = p, r[1] = q, r[2] = s, r[3] = t;
        }
        for (int j = 0; j < 4; ++j) {
            aie::store_v(c + 128 * i + 32 * j, r[j].extract<16>(0));
            aie::store_v(c + 128 * i + 32 * j + 16, r[j].extract<16>(1));
        }
    });
}

// S57: nine taps over two vectors: eight shifts, ten merges, ten products (a rotation stands for a shift).
void dwconv(const bfloat16 *a, const bfloat16 *taps, bfloat16 *c) {
    v32 weights[10];
    for (int k = 0; k < 10; ++k) weights[k] = aie::load_v<32>(taps + 32 * k);
    loop("dwconv", 32, [&](int i) {
        const v32 x = aie::load_v<32>(a + 32 * i);
        v32 shifted[9];
        shifted[0] = x;
        for (int k = 1; k < 9; ++k) shifted[k] = aie::shuffle_down_rotate(x, k);
        sum16 low, high;
        for (int k = 0; k < 5; ++k) {
            const auto [p, q] = aie::interleave_zip(shifted[2 * k], shifted[k < 4 ? 2 * k + 1 : 0], 16);
            low = k ? mac_pairs(low, p, weights[2 * k]) : mul_pairs(p, weights[2 * k]);
            high = k ? mac_pairs(high, q, weights[2 * k + 1]) : mul_pairs(q, weights[2 * k + 1]);
        }
        aie::store_v(c + 32 * i, low.to_vector<bfloat16>());
        aie::store_v(c + 32 * i + 16, high.to_vector<bfloat16>());
    });
}

// S60: x or alpha x, whichever is more; eight vectors a trip.
void leaky_relu(const bfloat16 *a, bfloat16 *c) {
    const v16 alpha = small(0.125f);
    loop("leaky", 8, [&](int i) {
        for (int j = 0; j < 4; ++j) {
            const bfloat16 *at = a + 128 * i + 32 * j;
            const v32 x = aie::load_v<32>(at);
            const v16 low = aie::mul(x.extract<16>(0), alpha).to_vector<bfloat16>(), high = aie::mul(x.extract<16>(1), alpha).to_vector<bfloat16>();
            store_words(c + 128 * i + 32 * j, aie::max(x.cast_to<int16_t>(), aie::concat(low, high).cast_to<int16_t>()));
        }
    });
}

void reduce_max_words(const int32_t *a, int32_t *c) {
    i16 most = aie::zeros<int32_t, 16>();
    loop("reduce", 64, [&](int i) { most = aie::max(most, aie::load_v<16>(a + 16 * i)); });
    for (int n = 8; n; n /= 2) most = aie::max(most, aie::shuffle_down_rotate(most, n));
    aie::store_v(c, most);
}

// S74: eight accumulators of a convolution: four loads of activations, two tiles of weights.
void conv2dk14(const bfloat16 *a, const bfloat16 *w, float *c) {
    using unit = aie::mmul<4, 8, 4, bfloat16, bfloat16, accauto>;
    unit s[8];
    for (auto &x : s) x = unit(sum16(aie::zeros<float, 16>()));
    loop("conv", 98, [&](int i) {
        const v32 y0 = aie::load_v<32>(w + 64 * i), y1 = aie::load_v<32>(w + 64 * i + 32);
        for (int j = 0; j < 4; ++j) {
            const v16 x = aie::load_v<16>(a + 64 * i + 16 * j);
            s[2 * j].mac(aie::concat(x, x), y0), s[2 * j + 1].mac(aie::concat(x, x), y1);
        }
    });
    for (int j = 0; j < 8; ++j) store_sums(c + 16 * j, s[j].to_accum());
}

// S55: four bits to bf16 with a scale: eight moves, six products, four stores for 64 values.
void expand(const bfloat16 *a, bfloat16 *c) {
    const v32 scale = small<32>(3);
    const sum16 offset(lanes(-384.0f));
    loop("expand", 16, [&](int i) {
        const v32 x = aie::load_v<32>(a + 32 * i);
        const auto words = x.cast_to<int16_t>();
        const auto low = aie::bit_and(words, aie::broadcast<int16_t, 32>(15)), high = aie::bit_and(words, aie::broadcast<int16_t, 32>(240));
        const auto [p, q] = aie::interleave_zip(low, high, 1);
        const v32 t = aie::transpose(p.cast_to<bfloat16>(), 2, 16), u = aie::transpose(q.cast_to<bfloat16>(), 2, 16);
        const v32 v = aie::shuffle_down_rotate(t, 16), w = aie::shuffle_down_rotate(u, 16);
        for (int j = 0; const v32 &y : {t, v, u, w}) aie::store_v(c + 64 * i + 16 * j++, mac_pairs(offset, y, scale).to_vector<bfloat16>());
    });
}

}  // namespace

extern "C" void precedent(int32_t which, const void *a, const void *b, void *c) {
    const auto *x = static_cast<const bfloat16 *>(a), *y = static_cast<const bfloat16 *>(b);
    auto *z = static_cast<bfloat16 *>(c);
    aie::host::trace.clear();
    aie::host::core.operands = 0;
    for (const void *p : {a, b, static_cast<const void *>(c)}) aie::host::separate(p, 65536);
    switch (which) {
    case 0: return product<32, false>(x, y, reinterpret_cast<float *>(z));
    case 1: return product<64, true>(x, y, reinterpret_cast<float *>(z));
    case 2: return add(x, y, z, 256);
    case 3: return add(x, y, z, 1024);
    case 4: return add(x, y, z, 2048);
    case 5: return multiply(x, y, z, 1024);
    case 6: return multiply(x, y, z, 4096);
    case 7: return relu(x, z);
    case 8: return convert_copy(reinterpret_cast<const float *>(x), z);
    case 9: return reduce_add(static_cast<const int32_t *>(a), static_cast<int32_t *>(c));
    case 10: return reduce_max(x, z);
    case 11: return bitwise_and(x, y, z);
    case 12: return identity_epilogue(reinterpret_cast<const float *>(x), z, INT32_MIN);
    case 13: return rope(x, y, z);
    case 14: return transpose(x, z, 64);
    case 15: return dwconv(x, y, z);
    case 16: return transpose(x, z, 8);
    case 17: return leaky_relu(x, z);
    case 18: return reduce_max_words(static_cast<const int32_t *>(a), static_cast<int32_t *>(c));
    case 19: return conv2dk14(x, y, reinterpret_cast<float *>(z));
    case 20: return expand(x, z);
    }
}
