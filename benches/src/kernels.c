/* The ten kernels the meter is measured on, as a plugin would be compiled:
 *   clang --target=wasm32 -O2 -mbulk-memory -nostdlib -Wl,--no-entry kernels.c -o kernels.wasm
 * Each export run_<name> takes the number of rounds and returns a checksum. No library is used. */
#include <stdint.h>

/* Moves the code that follows by some bytes per level, -DSHIFT=0 to 7: how fast a loop is depends on where it lies. */
static volatile uint64_t shift;
#ifndef SHIFT
#define SHIFT 0
#endif
#define MOVE(bit) if (SHIFT >> bit & 1) for (int i = 0; i < 1 << bit; i++) shift = 0x123456789abcdef0u + i;
#define MOVED MOVE(0) MOVE(1) MOVE(2)

#define KERNEL(name) __attribute__((export_name("run_" #name))) uint64_t name(uint32_t rounds)

/* As tight as a loop can be: six shifts and exclusive ors per round, each waiting for the one before. */
KERNEL(xorshift) {
    MOVED
    uint64_t x = 88172645463325252u;
    for (uint32_t n = rounds * 1000; n; n--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

/* Tighter still, and nothing waits: a sum that has no closed form. */
KERNEL(sum) {
    MOVED
    uint64_t sum = 0, key = rounds;
    for (uint64_t i = 0; i < (uint64_t)rounds * 1000; i++) sum += (i ^ key) * 3;
    return sum;
}

/* The sum of 64 KiB, word by word. */
static uint64_t words[1 << 13];
KERNEL(memory) {
    MOVED
    uint64_t sum = 0;
    for (uint32_t r = 0; r < rounds; r++) {
        for (uint32_t i = 0; i < 1 << 13; i++) sum += words[i];
        words[r & 0x1fff] = sum + r;
    }
    return sum;
}

/* Nothing but calls. */
static uint32_t fib(uint32_t n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
KERNEL(fibonacci) { MOVED return fib(rounds); }

static uint32_t state = 1;
static uint32_t next(void) {
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

/* 64 x 64 matrix product. */
static double a[64][64], b[64][64], c[64][64];
KERNEL(matrix) {
    MOVED
    double trace = 0;
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++) a[i][j] = i + j, b[i][j] = i - j;
    for (uint32_t r = 0; r < rounds; r++) {
        for (int i = 0; i < 64; i++)
            for (int j = 0; j < 64; j++) {
                double sum = 0;
                for (int k = 0; k < 64; k++) sum += a[i][k] * b[k][j];
                c[i][j] = sum;
            }
        a[r & 63][0] += 1;
        trace += c[r & 63][r & 63];
    }
    return (uint64_t)(int64_t)trace;
}

/* Primes below 64 Ki, sieve of Eratosthenes. */
static uint8_t composite[1 << 16];
KERNEL(sieve) {
    MOVED
    uint64_t primes = 0;
    for (uint32_t r = 0; r < rounds; r++) {
        for (uint32_t i = 0; i < sizeof composite; i++) composite[i] = 0;
        for (uint32_t i = 2; i < sizeof composite; i++) {
            if (composite[i]) continue;
            primes++;
            for (uint32_t j = i * 2; j < sizeof composite; j += i) composite[j] = 1;
        }
    }
    return primes;
}

/* SHA-256 of 64 KiB. */
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static uint8_t text[1 << 16];
static uint32_t rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }
static void block(uint32_t h[8], const uint8_t *p) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    for (int i = 0; i < 8; i++) v[i] = h[i];
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotr(v[4], 6) ^ rotr(v[4], 11) ^ rotr(v[4], 25);
        uint32_t ch = (v[4] & v[5]) ^ (~v[4] & v[6]);
        uint32_t t1 = v[7] + s1 + ch + K[i] + w[i];
        uint32_t s0 = rotr(v[0], 2) ^ rotr(v[0], 13) ^ rotr(v[0], 22);
        uint32_t maj = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        for (int j = 7; j > 0; j--) v[j] = v[j - 1];
        v[4] += t1;
        v[0] = t1 + s0 + maj;
    }
    for (int i = 0; i < 8; i++) h[i] += v[i];
}
KERNEL(sha256) {
    MOVED
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    for (uint32_t r = 0; r < rounds; r++) {
        text[r & 0xffff]++;
        for (uint32_t i = 0; i < sizeof text; i += 64) block(h, text + i);
    }
    return (uint64_t)h[0] << 32 | h[7];
}

/* Five bodies under gravity. */
static double root(double x) { return __builtin_sqrt(x); }
static struct { double x[3], v[3], m; } body[5];
KERNEL(nbody) {
    MOVED
    for (int i = 0; i < 5; i++) {
        for (int d = 0; d < 3; d++) body[i].x[d] = i * 1.5 + d, body[i].v[d] = (i - 2) * 0.1 * d;
        body[i].m = 1.0 / (i + 1);
    }
    for (uint32_t r = 0; r < rounds * 100; r++) {
        for (int i = 0; i < 5; i++)
            for (int j = i + 1; j < 5; j++) {
                double dx = body[i].x[0] - body[j].x[0], dy = body[i].x[1] - body[j].x[1];
                double dz = body[i].x[2] - body[j].x[2];
                double d2 = dx * dx + dy * dy + dz * dz, mag = 0.001 / (d2 * root(d2));
                body[i].v[0] -= dx * body[j].m * mag, body[j].v[0] += dx * body[i].m * mag;
                body[i].v[1] -= dy * body[j].m * mag, body[j].v[1] += dy * body[i].m * mag;
                body[i].v[2] -= dz * body[j].m * mag, body[j].v[2] += dz * body[i].m * mag;
            }
        for (int i = 0; i < 5; i++)
            for (int d = 0; d < 3; d++) body[i].x[d] += 0.001 * body[i].v[d];
    }
    return (uint64_t)(int64_t)(body[0].x[0] * 1e6);
}

/* Quicksort of 16 Ki numbers, small parts by insertion. */
static uint32_t numbers[1 << 14];
static void sort_range(uint32_t *low, uint32_t *high) {
    MOVED
    while (high - low > 16) {
        uint32_t pivot = low[(high - low) / 2], *i = low, *j = high - 1;
        while (i <= j) {
            while (*i < pivot) i++;
            while (*j > pivot) j--;
            if (i <= j) {
                uint32_t t = *i;
                *i++ = *j, *j-- = t;
            }
        }
        sort_range(low, j + 1);
        low = i;
    }
    for (uint32_t *i = low + 1; i < high; i++) {
        uint32_t t = *i, *j = i;
        for (; j > low && j[-1] > t; j--) *j = j[-1];
        *j = t;
    }
}
KERNEL(sort) {
    MOVED
    uint64_t sum = 0;
    for (uint32_t r = 0; r < rounds; r++) {
        for (uint32_t i = 0; i < 1 << 14; i++) numbers[i] = next();
        sort_range(numbers, numbers + (1 << 14));
        sum += numbers[r & 0x3fff];
    }
    return sum;
}

/* UTF-8 validation of 64 KiB, half of it beyond ASCII. */
static int valid(const uint8_t *p, const uint8_t *end) {
    while (p < end) {
        uint8_t c = *p++;
        if (c < 0x80) continue;
        int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c < 0xc2 || c > 0xf4 || end - p < more) return 0;
        uint8_t n = *p;
        if ((c == 0xe0 && n < 0xa0) || (c == 0xed && n > 0x9f) || (c == 0xf0 && n < 0x90) ||
            (c == 0xf4 && n > 0x8f))
            return 0;
        for (; more; more--)
            if ((*p++ & 0xc0) != 0x80) return 0;
    }
    return 1;
}
KERNEL(utf8) {
    MOVED
    uint32_t i = 0;
    uint64_t good = 0;
    while (i + 4 < sizeof text) {
        switch (next() & 3) {
        case 0: text[i++] = 0xe2, text[i++] = 0x82, text[i++] = 0xac; break;
        case 1: text[i++] = 0xc3, text[i++] = 0xa4; break;
        default: text[i++] = 'a';
        }
    }
    while (i < sizeof text) text[i++] = ' ';
    for (uint32_t r = 0; r < rounds; r++) good += valid(text, text + sizeof text), text[r & 7] ^= 0;
    return good;
}
