// The first words of a header object, kept while the object's buffer moves on.
#include "common.hpp"

extern "C" void read_header(const bfloat16 *__restrict a, int32_t *__restrict hdr) {
    const auto *words = reinterpret_cast<const int32_t *>(a);
    for (int i = 0; i < word::count; i += 8) aie::store_v(hdr + i, aie::load_v<8>(words + i));
}
