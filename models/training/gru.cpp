// The recurrence of a GRU and its gradient, for training on a CPU. Compiled and called by models/training/gru.py, once
// with BFLOAT16 (products of bfloat16 numbers summed in float32: processors with AVX512_BF16) and once without.
//
// Layouts, row-major: gates_in [T, R, 3 H] (what the input gives to r, z, n, with its bias), hidden [R, H], weights
// [3 H, H] and bias [3 H] as torch.nn.GRU has them, y [T, R, H], kept [T, R, 4 H] (r, z, n and the recurrent part of n
// before the gate). `number` is what the large arrays and the factors of the products are; the state itself stays
// float32. H is a multiple of 16. Rows do not hear of each other, so every thread takes some through all steps.

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>
#ifdef BFLOAT16
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;
constexpr int TILE = 64;  // rows that go through all steps before the next ones, so that their state stays in the cache
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4)));

inline vec load(const float *p) { return *reinterpret_cast<const vec *>(p); }
inline void store(float *p, vec v) { *reinterpret_cast<vec *>(p) = v; }

#ifdef BFLOAT16
typedef uint16_t number;
constexpr int PAIR = 2;  // neighbours along the sum, multiplied by one instruction

inline vec load(const number *p) {
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
}
inline void store(number *p, vec v) { _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh((__m512)v)); }
inline number narrow(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
typedef __m512bh factors;
inline factors load_factors(const number *p) { return (factors)_mm512_loadu_si512(p); }
inline factors spread(const number *p) {
    int32_t both;
    __builtin_memcpy(&both, p, 4);
    return (factors)_mm512_set1_epi32(both);
}
inline vec multiply_add(factors a, factors b, vec sum) { return (vec)_mm512_dpbf16_ps((__m512)sum, a, b); }
#else
typedef float number;
constexpr int PAIR = 1;

inline number narrow(float value) { return value; }
typedef vec factors;
inline factors load_factors(const number *p) { return load(p); }
inline factors spread(const number *p) { return vec{} + *p; }
inline vec multiply_add(factors a, factors b, vec sum) { return sum + a * b; }
#endif

// 2^n from the exponent's bits, 2^f for f in [-0.5, 0.5] from its series: 2e-7 relative.
inline vec exponential(vec x) {
    vec t = x * 1.44269504089f;
    t = t < -126.0f ? (vec{} - 126.0f) : t;
    t = t > 126.0f ? (vec{} + 126.0f) : t;
    const vec shifted = t + 12582912.0f;  // 1.5 * 2^23: the nearest integer is in the low bits
    const vec f = t - (shifted - 12582912.0f);
    vec p = 1.5403530e-4f * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return (vec)((ivec)p + (((ivec)shifted) << 23));
}

inline vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }
inline vec tangent(vec x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

// hidden: the state; factor: the same as numbers. packed: [H / LANES][H / PAIR][r, z, n][LANES][PAIR].
template <int ROWS>
void forward_rows(const number *gates_in, const float *hidden, const number *factor, const number *packed,
                  const float *bias, int H, float *y, number *y_factor, number *kept) {
    for (int unit = 0; unit < H; unit += LANES) {
        vec r[ROWS], z[ROWS], n[ROWS];
#pragma GCC unroll 8
        for (int m = 0; m < ROWS; m++) {
            r[m] = load(bias + unit);
            z[m] = load(bias + H + unit);
            n[m] = load(bias + 2 * H + unit);
        }
        const number *w = packed + (size_t)3 * unit * H;
        for (int k = 0; k < H; k += PAIR, w += 3 * PAIR * LANES) {
            const factors to_r = load_factors(w), to_z = load_factors(w + PAIR * LANES);
            const factors to_n = load_factors(w + 2 * PAIR * LANES);
#pragma GCC unroll 8
            for (int m = 0; m < ROWS; m++) {
                const factors h = spread(factor + m * H + k);
                r[m] = multiply_add(to_r, h, r[m]);
                z[m] = multiply_add(to_z, h, z[m]);
                n[m] = multiply_add(to_n, h, n[m]);
            }
        }
#pragma GCC unroll 8
        for (int m = 0; m < ROWS; m++) {
            const number *in = gates_in + m * 3 * H + unit;
            const vec reset = sigmoid(load(in) + r[m]), update = sigmoid(load(in + H) + z[m]);
            const vec candidate = tangent(load(in + 2 * H) + reset * n[m]);
            const vec now = candidate + update * (load(hidden + m * H + unit) - candidate);
            store(y + m * H + unit, now);
            if (PAIR > 1) store(y_factor + m * H + unit, now);
            if (kept) {
                number *keep = kept + m * 4 * H + unit;
                store(keep, reset);
                store(keep + H, update);
                store(keep + 2 * H, candidate);
                store(keep + 3 * H, n[m]);
            }
        }
    }
}

// out [ROWS, H] += a [ROWS, 3 H] w [3 H, H]; packed: [3 H / PAIR][H][PAIR].
template <int ROWS, int COLUMNS>
void multiply_add(const number *a, const number *packed, int H, float *out) {
    for (int column = 0; column < H; column += COLUMNS * LANES) {
        vec sum[ROWS][COLUMNS];
#pragma GCC unroll 8
        for (int m = 0; m < ROWS; m++)
#pragma GCC unroll 3
            for (int c = 0; c < COLUMNS; c++) sum[m][c] = load(out + m * H + column + c * LANES);
        for (int k = 0; k < 3 * H; k += PAIR) {
            factors row[COLUMNS];
#pragma GCC unroll 3
            for (int c = 0; c < COLUMNS; c++)
                row[c] = load_factors(packed + (size_t)k * H + (column + c * LANES) * PAIR);
#pragma GCC unroll 8
            for (int m = 0; m < ROWS; m++) {
                const factors value = spread(a + m * 3 * H + k);
#pragma GCC unroll 3
                for (int c = 0; c < COLUMNS; c++) sum[m][c] = multiply_add(row[c], value, sum[m][c]);
            }
        }
#pragma GCC unroll 8
        for (int m = 0; m < ROWS; m++)
#pragma GCC unroll 3
            for (int c = 0; c < COLUMNS; c++) store(out + m * H + column + c * LANES, sum[m][c]);
    }
}

template <int ROWS>
void multiply_add_columns(const number *a, const number *packed, int H, float *out) {
    const int blocks = H / LANES;
    if (blocks % 3 == 0)
        multiply_add<ROWS, 3>(a, packed, H, out);
    else if (blocks % 2 == 0)
        multiply_add<ROWS, 2>(a, packed, H, out);
    else
        multiply_add<ROWS, 1>(a, packed, H, out);
}

// Calls `work` for all rows in blocks of 8, and of 4, 2 and 1 for what is left.
template <class Work>
void blocks_of_rows(int from, int to, Work work) {
    for (; from + 8 <= to; from += 8) work(from, std::integral_constant<int, 8>());
    for (; from + 4 <= to; from += 4) work(from, std::integral_constant<int, 4>());
    for (; from + 2 <= to; from += 2) work(from, std::integral_constant<int, 2>());
    for (; from < to; from += 1) work(from, std::integral_constant<int, 1>());
}

// Calls work(first row, last row + 1, thread).
template <class Work>
void in_threads(int R, int threads, Work work) {
    const int share = std::max(8, ((R + threads - 1) / threads + 7) / 8 * 8);
    std::vector<std::thread> others;
    for (int thread = 1; thread * share < R; thread++)
        others.emplace_back([=] { work(thread * share, std::min(R, (thread + 1) * share), thread); });
    work(0, std::min(R, share), 0);
    for (auto &other : others) other.join();
}

}  // namespace

extern "C" {

// y_factor [T + 1, R, H]: the states as numbers, in order of time; the one before the first step is given: the first, or
// the last with `reverse`, when the steps go from the last to the first. With float32 numbers y is part of the same
// array. `kept` may be null: no gradient then.
void gru_forward(const number *gates_in, const float *hidden, const float *weights, const float *bias, float *y,
                 number *y_factor, number *kept, int T, int R, int H, int reverse, int threads) {
    std::vector<number> packed((size_t)3 * H * H);
    number *p = packed.data();
    for (int unit = 0; unit < H; unit += LANES)
        for (int k = 0; k < H; k += PAIR)
            for (int gate = 0; gate < 3; gate++)
                for (int lane = 0; lane < LANES; lane++)
                    for (int next = 0; next < PAIR; next++)
                        *p++ = narrow(weights[(size_t)(gate * H + unit + lane) * H + k + next]);
    const number *w = packed.data();
    in_threads(R, threads, [=](int begin, int end, int) {
        for (int first = begin; first < end; first += TILE) {
            for (int step = 0; step < T; step++) {
                const size_t t = reverse ? T - 1 - step : step;
                const float *before = step ? y + (reverse ? t + 1 : t - 1) * R * H : hidden;
                blocks_of_rows(first, std::min(end, first + TILE), [&](int row, auto rows) {
                    const size_t here = t * R + row, next = here + R;
                    forward_rows<rows.value>(gates_in + here * 3 * H, before + (size_t)row * H,
                                             y_factor + (reverse ? next : here) * H, w, bias, H, y + here * H,
                                             y_factor + (reverse ? here : next) * H, kept ? kept + here * 4 * H : nullptr);
                });
            }
        }
    });
}

// From dy [T, R, H] the gradients of gates_in (to_input) and of the recurrent part of the gates (to_hidden), both
// [T, R, 3 H], and of the hidden state: d_hidden [R, H] holds that of the last one when called, of the first afterwards.
// d_bias [threads, 4 H], zeros when called: every thread's part of the sums of to_input and, at the end, of to_hidden's n.
void gru_backward(const float *dy, const number *y_factor, const number *kept, const float *weights, number *to_input,
                  number *to_hidden, float *d_hidden, float *d_bias, int T, int R, int H, int reverse,
                  int threads) {
    std::vector<number> packed((size_t)3 * H * H);
    number *p = packed.data();
    for (int k = 0; k < 3 * H; k += PAIR)
        for (int column = 0; column < H; column++)
            for (int next = 0; next < PAIR; next++) *p++ = narrow(weights[(size_t)(k + next) * H + column]);
    const number *w = packed.data();
    in_threads(R, threads, [=](int begin, int end, int thread) {
        float *sums = d_bias + (size_t)thread * 4 * H;
        for (int first = begin; first < end; first += TILE) {
            const int last = std::min(end, first + TILE);
            for (int step = T - 1; step >= 0; step--) {
                const size_t t = reverse ? T - 1 - step : step;
                for (int row = first; row < last; row++) {
                    const size_t here = t * R + row;
                    const number *keep = kept + here * 4 * H, *before = y_factor + (reverse ? here + R : here) * H;
                    number *input = to_input + here * 3 * H, *recurrent = to_hidden + here * 3 * H;
                    float *carried = d_hidden + (size_t)row * H;
                    for (int u = 0; u < H; u += LANES) {
                        const vec r = load(keep + u), z = load(keep + H + u), n = load(keep + 2 * H + u);
                        const vec d = load(carried + u) + load(dy + here * H + u);
                        const vec dn = d * (1.0f - z) * (1.0f - n * n);
                        const vec dz = d * (load(before + u) - n) * z * (1.0f - z);
                        const vec dr = dn * load(keep + 3 * H + u) * r * (1.0f - r);
                        store(input + u, dr);
                        store(input + H + u, dz);
                        store(input + 2 * H + u, dn);
                        store(recurrent + u, dr);
                        store(recurrent + H + u, dz);
                        store(recurrent + 2 * H + u, dn * r);
                        store(carried + u, d * z);
                        store(sums + u, load(sums + u) + dr);
                        store(sums + H + u, load(sums + H + u) + dz);
                        store(sums + 2 * H + u, load(sums + 2 * H + u) + dn);
                        store(sums + 3 * H + u, load(sums + 3 * H + u) + dn * r);
                    }
                }
                blocks_of_rows(first, last, [&](int row, auto rows) {
                    multiply_add_columns<rows.value>(to_hidden + (t * R + row) * 3 * H, w, H, d_hidden + (size_t)row * H);
                });
            }
        }
    });
}
}
