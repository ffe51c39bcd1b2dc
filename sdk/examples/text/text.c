/*
 * Plugin `text` 1.0.0: folds text for searching, so that "Sao Paulo" finds "São Paulo".
 *
 * Method 1, `fold`: UTF-8 in, UTF-8 out, in lower case and without diacritics, for Latin, Greek and
 * Cyrillic letters; everything else stays as it is. What is not UTF-8 is a bad request.
 *
 * Build, as a library and as a module:
 *   cc -shared -fPIC -fvisibility=hidden -O2 -Wl,--build-id -Wl,-z,noexecstack -I ../../include -o libtext.so text.c
 *   clang --target=wasm32 -O2 -nostdlib -mbulk-memory -Wl,--no-entry -I ../../include -I ../../include/wasm
 *         -o text.wasm text.c
 */
#define THEMIS_LOG /* As in the manifest's capabilities: what a module may import. */
#include "themis_plugin.h"

#include "fold_table.h"

#ifndef VERSION
#define VERSION "1.0.0"
#endif

#define METHOD_FOLD 1u

/* The replies leave in pieces of this size. */
#define PIECE 1024u

/* Only blanks and one pair of braces. */
static int is_empty_object(themis_slice json) {
  static const char wanted[] = "{}";
  size_t seen = 0;
  for (size_t i = 0; i < json.len; i++) {
    const uint8_t c = json.ptr[i];
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') continue;
    if (seen == 2 || c != (uint8_t)wanted[seen]) return 0;
    seen++;
  }
  return seen == 2;
}

static int32_t init(const themis_host *host, themis_slice config_json, void **instance,
                    const themis_reply *message) {
  if (!is_empty_object(config_json)) {
    return themis_fail(message, THEMIS_ERROR, "config: text takes no settings, remove them");
  }
  /* No state: threads cannot disturb each other. */
  *instance = NULL;
  themis_log(host, THEMIS_LOG_INFO, "text " VERSION ": ready to fold");
  return THEMIS_OK;
}

/*
 * Reads the code point at text[*at] and moves on; -1 when it is not UTF-8: a stray or missing continuation
 * byte, a longer form than needed, a surrogate, or beyond U+10FFFF.
 */
static int32_t decode(themis_slice text, size_t *at) {
  static const int32_t smallest[] = {0, 0x80, 0x800, 0x10000};
  const uint8_t lead = text.ptr[*at];
  const size_t more = lead < 0x80 ? 0 : lead < 0xC0 ? 4 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF8 ? 3 : 4;
  if (more == 4 || more >= text.len - *at) return -1;
  int32_t code = more == 0 ? lead : lead & (0x3F >> more);
  for (size_t i = 1; i <= more; i++) {
    const uint8_t next = text.ptr[*at + i];
    if ((next & 0xC0) != 0x80) return -1;
    code = (code << 6) | (next & 0x3F);
  }
  if (code < smallest[more] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return -1;
  *at += more + 1;
  return code;
}

static size_t encode(uint8_t *out, int32_t code) {
  if (code < 0x80) {
    out[0] = (uint8_t)code;
    return 1;
  }
  if (code < 0x800) {
    out[0] = (uint8_t)(0xC0 | (code >> 6));
    out[1] = (uint8_t)(0x80 | (code & 0x3F));
    return 2;
  }
  if (code < 0x10000) {
    out[0] = (uint8_t)(0xE0 | (code >> 12));
    out[1] = (uint8_t)(0x80 | ((code >> 6) & 0x3F));
    out[2] = (uint8_t)(0x80 | (code & 0x3F));
    return 3;
  }
  out[0] = (uint8_t)(0xF0 | (code >> 18));
  out[1] = (uint8_t)(0x80 | ((code >> 12) & 0x3F));
  out[2] = (uint8_t)(0x80 | ((code >> 6) & 0x3F));
  out[3] = (uint8_t)(0x80 | (code & 0x3F));
  return 4;
}

/* Combining marks that Latin, Greek and Cyrillic text carries. */
static int is_mark(int32_t code) {
  return (code >= 0x0300 && code <= 0x036F) || (code >= 0x1AB0 && code <= 0x1AFF) ||
         (code >= 0x1DC0 && code <= 0x1DFF) || (code >= 0x20D0 && code <= 0x20FF) ||
         (code >= 0xFE20 && code <= 0xFE2F);
}

/* Writes the folded form of one code point: at most 8 bytes. */
static size_t fold_one(uint8_t *out, int32_t code) {
  const uint16_t *units;
  if (code < 0x80) {
    out[0] = (uint8_t)(code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code);
    return 1;
  }
  if (is_mark(code)) return 0;
  if (code >= 0x00C0 && code <= 0x024F) {
    units = fold_00c0[code - 0x00C0];
  } else if (code >= 0x0370 && code <= 0x052F) {
    units = fold_0370[code - 0x0370];
  } else if (code >= 0x1E00 && code <= 0x1EFF) {
    units = fold_1e00[code - 0x1E00];
  } else {
    return encode(out, code);
  }
  size_t written = 0;
  for (int i = 0; i < 2 && units[i] != 0; i++) written += encode(out + written, units[i]);
  return written;
}

static int32_t fold(themis_slice text, const themis_reply *reply) {
  uint8_t piece[PIECE];
  size_t filled = 0;
  size_t at = 0;
  /* Checked as a whole first, so that a bad request gets no half an answer. */
  while (at < text.len) {
    if (decode(text, &at) < 0) {
      return themis_fail(reply, THEMIS_BAD_REQUEST, "the text is not UTF-8");
    }
  }
  at = 0;
  while (at < text.len) {
    filled += fold_one(piece + filled, decode(text, &at));
    if (filled > PIECE - 8) {
      if (themis_write(reply, piece, filled) != 0) return THEMIS_ERROR;
      filled = 0;
    }
  }
  return themis_write(reply, piece, filled) == 0 ? THEMIS_OK : THEMIS_ERROR;
}

static int32_t call(void *instance, uint32_t method, themis_slice request,
                    const themis_reply *reply) {
  (void)instance;
  return method == METHOD_FOLD ? fold(request, reply) : THEMIS_UNKNOWN_METHOD;
}

static int32_t shutdown(void *instance) {
  (void)instance;
  return THEMIS_OK;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD("text", VERSION, THEMIS_THREAD_SAFE), init, call, NULL, NULL, NULL, shutdown};

THEMIS_WASM_IDENTITY("text", VERSION);
