// One streamed frame of a temporal attention in one pass over its cache, for CPUs. The letters are
// those of cache.py; tensors are float32 in the order that ring_cpp.py gives.

#include <ATen/cpu/vec/functional.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#ifdef _WIN32
#define EXPORTED extern "C" __declspec(dllexport)
#else
#define EXPORTED extern "C"
#endif

using Vec = at::vec::Vectorized<float>;
constexpr int64_t WIDTH = Vec::size();
constexpr float HIDDEN = -std::numeric_limits<float>::infinity();

static inline int64_t lanes(int64_t from, int64_t end) { return std::min(end - from, WIDTH); }

template <typename Op>
static inline float reduce(const Op& op, Vec x) {
  return at::vec::vec_reduce_all<float>(op, x);
}

struct Window {
  int64_t sinks, ring;
  int64_t slots() const { return sinks + ring; }
};

// What a row of an age sees: `ring_slots` and `ring_visibility` of cache.py. The first `seen` slots.
struct View {
  int64_t slot, seen;
  std::vector<int64_t> position;

  View(int64_t age, Window window) : position(window.slots()) {
    const int64_t newest = std::max<int64_t>(age, 0) % window.ring;
    slot = window.sinks + newest;
    seen = std::min(window.sinks + std::max<int64_t>(age, -1) + 1, window.slots());
    for (int64_t j = 0; j < window.slots(); ++j) {
      const bool turning = age >= window.ring && j >= window.sinks;
      const int64_t behind = (j - window.sinks - newest - 1 + 2 * window.ring) % window.ring;
      position[j] = turning ? window.sinks + behind : j;
    }
  }
};

// Positions of keys and values for one head, and how far the next position is.
struct Tables {
  const float *key, *value;
  int64_t stride;
};

// Scores to weights that add up to one; `padded` is the slots' number in whole vectors.
static inline void softmax(float* score, int64_t padded) {
  const auto larger = [](Vec a, Vec b) { return at::vec::maximum(a, b); };
  const auto sum = [](Vec a, Vec b) { return a + b; };
  Vec top(HIDDEN), total(0.f);
  for (int64_t j = 0; j < padded; j += WIDTH) top = larger(top, Vec::loadu(score + j));
  const Vec highest(reduce(larger, top));
  for (int64_t j = 0; j < padded; j += WIDTH) {
    const Vec weight = (Vec::loadu(score + j) - highest).exp();
    weight.store(score + j);
    total = total + weight;
  }
  const Vec inverse(1.f / reduce(sum, total));
  for (int64_t j = 0; j < padded; j += WIDTH) (Vec::loadu(score + j) * inverse).store(score + j);
}

// One pixel and head. query, out: (d,). keys, values: (slots, d), with this frame's own written.
// WIDE: d where the compiler is to know it, else 0.
template <int64_t WIDE>
static inline void attend(
    const float* query, const float* keys, const float* values, const View& view, Tables tables,
    int64_t width, float* score, int64_t padded, float* out) {
  const auto sum = [](Vec a, Vec b) { return a + b; };
  const int64_t d = WIDE ? WIDE : width;
  const float scale = 1.f / std::sqrt(static_cast<float>(d));
  for (int64_t j = 0; j < view.seen; ++j) {
    const float *key = keys + j * d, *place = tables.key + view.position[j] * tables.stride;
    Vec dot(0.f);
    for (int64_t i = 0; i < d; i += WIDTH) {
      const int64_t n = lanes(i, d);
      const Vec placed = Vec::loadu(key + i, n) + Vec::loadu(place + i, n);
      dot = at::vec::fmadd(Vec::loadu(query + i, n), placed, dot);
    }
    score[j] = reduce(sum, dot) * scale;
  }
  softmax(score, padded);
  for (int64_t i = 0; i < d; i += WIDTH) {
    const int64_t n = lanes(i, d);
    Vec mean(0.f);
    for (int64_t j = 0; j < view.seen; ++j) {
      const float *value = values + j * d, *place = tables.value + view.position[j] * tables.stride;
      const Vec placed = Vec::loadu(value + i, n) + Vec::loadu(place + i, n);
      mean = at::vec::fmadd(Vec(score[j]), placed, mean);
    }
    mean.store(out + i, n);
  }
}

// New numbers of all pixels, so many apart: (g p, e, d), of which (e, d) has no gaps.
struct New {
  const float* data;
  int64_t stride;
  const float* at(int64_t pixel, int64_t channel) const { return data + pixel * stride + channel; }
};

// A frame of all rows. keys, values: (g, p, e, slots, d). out: (g, p, e, d). Both without gaps.
struct Frame {
  New query, key, value;
  float *keys, *values, *out;
  int64_t p, e, d;
};

template <int64_t WIDE>
static void step_rows(
    const Frame& frame, const std::vector<View>& views, Tables tables, int64_t threads) {
  const int64_t d = WIDE ? WIDE : frame.d, slots = views[0].position.size(), block = slots * d;
  const int64_t padded = (slots + WIDTH - 1) / WIDTH * WIDTH, pixels = views.size() * frame.p;
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> score(padded);
#pragma omp for schedule(static)
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      const View& view = views[pixel / frame.p];
      for (int64_t head = 0; head < frame.e; ++head) {
        const int64_t n = pixel * frame.e + head, first = head * d;
        float *keys = frame.keys + n * block, *values = frame.values + n * block;
        for (int64_t i = 0; i < d; i += WIDTH) {
          const int64_t count = lanes(i, d);
          const int64_t to = view.slot * d + i;
          Vec::loadu(frame.key.at(pixel, first + i), count).store(keys + to, count);
          Vec::loadu(frame.value.at(pixel, first + i), count).store(values + to, count);
        }
        std::fill(score.begin() + view.seen, score.end(), HIDDEN);
        const Tables own{tables.key + first, tables.value + first, tables.stride};
        attend<WIDE>(frame.query.at(pixel, first), keys, values, view, own, d, score.data(), padded,
                     frame.out + n * d);
      }
    }
  }
}

// strides: of query, key and value, from pixel to pixel. tables: (positions, e, d). age: (g,). Reads
// the cache once and writes one key and value of each pixel and head. Head widths of Stable
// Diffusion 1.5 and of the bundled model are compiled apart.
EXPORTED void ring_step(
    const float* query, const float* key, const float* value, float* keys, float* values,
    const float* key_table, const float* value_table, const int64_t* age, float* out,
    int64_t query_stride, int64_t key_stride, int64_t value_stride, int64_t g, int64_t p, int64_t e,
    int64_t d, int64_t sinks, int64_t ring, int64_t threads) {
  std::vector<View> views;
  for (int64_t row = 0; row < g; ++row) views.emplace_back(age[row], Window{sinks, ring});
  const New new_query{query, query_stride}, new_key{key, key_stride}, new_value{value, value_stride};
  const Frame frame{new_query, new_key, new_value, keys, values, out, p, e, d};
  const Tables tables{key_table, value_table, e * d};
  switch (d) {
    case 12: return step_rows<12>(frame, views, tables, threads);
    case 16: return step_rows<16>(frame, views, tables, threads);
    case 40: return step_rows<40>(frame, views, tables, threads);
    case 80: return step_rows<80>(frame, views, tables, threads);
    case 160: return step_rows<160>(frame, views, tables, threads);
    default: return step_rows<0>(frame, views, tables, threads);
  }
}
