// The C ABI of the kernel library. Every field is 8 bytes wide, so that the Python side fills a block with one
// struct.pack and no compiler padding can disagree with it.
#pragma once
#include <cstdint>

#if defined(__GNUC__)
#define QX_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define QX_EXPORT extern "C"
#endif

enum QxDType : int64_t { QX_F32 = 0, QX_BF16 = 1, QX_F16 = 2, QX_I8 = 3, QX_E4M3 = 4 };  // the last two in caches, and bytes in eight-bit attention
enum QxIsa : int64_t { QX_GENERIC = 0, QX_AVX2 = 1, QX_AVX512 = 2, QX_AVX512_BF16 = 3, QX_AMX = 4, QX_ISA_COUNT = 5 };
enum QxActivation : int64_t { QX_RELU = 0, QX_GELU_ERF = 1, QX_GELU_TANH = 2, QX_SILU = 3 };
enum QxEmptyRow : int64_t { QX_ZEROS = 0, QX_UNIFORM = 1 };

// Result of a call: zero, or what was wrong with the arguments that only the library can see.
enum QxStatus : int64_t {
    QX_OK = 0,
    QX_NO_MEMORY = 1,
    QX_BAD_BOUNDARIES = 2,  // cu_seqlens falls, or runs past the tensor
    QX_BAD_COUNTS = 3,      // a valid count below 0 or over the key length
    QX_BIAS_TOO_SMALL = 4,  // bias or mask has fewer rows or columns than a sequence
};

// x, skip, bias, gamma, beta and sum_out may be null where the operator allows it; strides are in elements.
struct QxNorm {
    const void *x, *skip, *bias, *gamma, *beta;
    void *out, *sum_out;
    int64_t rows, size;
    int64_t x_stride, skip_stride, out_stride, sum_stride;
    int64_t dtype, param_dtype, rms;
    double eps;
};

// A null `positions` means position_offset + (token % period). A null `types` with a type table means row 0.
struct QxEmbed {
    const void *ids, *positions, *types;
    const void *word, *position, *type, *gamma, *beta;
    void* out;
    int64_t tokens, size, period, position_offset;
    int64_t word_rows, position_rows, type_rows;
    int64_t ids_bytes, positions_bytes, types_bytes;  // 4 or 8
    int64_t dtype, param_dtype;
    double eps;
};

struct QxActivationArgs {
    const void *x, *bias;
    void* out;
    int64_t rows, size, x_stride, out_stride;
    int64_t dtype, bias_dtype, kind;
};

struct QxRows {
    const void *x, *index;
    void* out;
    int64_t count, row_bytes, x_stride_bytes, out_stride_bytes;
    int64_t bound;  // gather: rows of x; scatter: rows of out
    int64_t index_bytes;
};

// mask [rows, length]; index has room for rows * length + 1 places, boundaries for rows + 1.
enum QxMaskKind : int64_t { QX_MASK_BOOL = 0, QX_MASK_I32 = 1, QX_MASK_I64 = 2, QX_MASK_F32 = 3 };
struct QxPackIndex {
    const void* mask;
    int64_t* index;
    int32_t* boundaries;
    int64_t rows, length, kind;
};

// x [rows, k], bias [n], residual and out [rows, n] of one dtype; `weight` is what qx_linear_pack made for this isa and dtype.
// For packing, `weight` is [n, k] as it comes and `out` takes qx_linear_bytes bytes, which lie at a multiple of 64.
struct QxLinear {
    const void *x, *weight, *bias, *residual;
    void* out;
    int64_t rows, n, k;
    int64_t x_stride, residual_stride, out_stride;
    int64_t dtype, activation, isa;  // activation: QxActivation, or -1 for none
    // Weights of four bits in groups of `group` values along K, 0 for weights of x's dtype. For packing, `weight` holds two
    // values a byte [n, k / 2], the first in the low half, and value = (bits - zero) * scale with these [n, k / group].
    const void *group_scale, *group_zero;
    int64_t group;
};

// As QxLinear, with x turned into bytes: each row by a scale and zero of its own, or (x_zero >= 0) all by x_scale and x_zero.
// For packing, `weight` is int8 [n, k], weight_scale float32 [n], and `out` takes qx_quant_linear_bytes bytes.
struct QxQuantLinear {
    const void *x, *weight, *bias, *residual, *weight_scale;
    const void* x_factor;  // null, or float32 [k]: x is multiplied by it before it becomes bytes
    void* out;
    int64_t rows, n, k;
    int64_t x_stride, residual_stride, out_stride;
    int64_t dtype, activation, isa;
    int64_t x_zero;
    double x_scale;
};

// Packed when cu_q is given: q, k, v and out hold tokens of all sequences one after the other, batch strides are 0.
struct QxAttention {
    const void *q, *k, *v;
    void* out;
    int64_t dtype;
    int64_t q_batch, q_token, q_head;
    int64_t k_batch, k_token, k_head;
    int64_t v_batch, v_token, v_head;
    int64_t out_batch, out_token, out_head;
    int64_t batch, heads, kv_heads, head_size, value_size;
    int64_t q_len, kv_len;      // packed: the numbers of token rows in q and in k
    const int32_t *cu_q, *cu_k;
    const int32_t *kv_counts, *prefix;
    int64_t causal, has_offset, offset, window_left, window_right;  // windows: -1 is none
    const void* bias;
    int64_t bias_dtype, bias_batch, bias_head, bias_q, bias_k, bias_rows, bias_columns;
    const uint8_t* mask;
    int64_t mask_batch, mask_head, mask_q, mask_k, mask_rows, mask_columns;
    int64_t empty_row;
    double scale, softcap;
};

// Attention over bytes. `attention` says what and where; its dtype may be QX_I8 beside the floats, which become bytes here.
// Scales of 0 are found: one a row of q and k, one a sequence and head of v.
struct QxQuantAttention {
    QxAttention attention;
    int64_t out_dtype;  // QX_I8 takes context_scale
    double q_scale, k_scale, v_scale, context_scale;
    double dq_probs;  // what a byte of a probability stands for; 0: a row's bytes count from its largest
};

// Attention of few queries a sequence over a cache [blocks, 2, kv_heads, tokens, head_size] whose strides are block, part,
// head and token. Without a table a block is a slot; with one, `page` tokens of the slot that names it. Sequence r has
// queries[r] queries from row first[r] of q on, at positions past[r] and on, and all keys up to them.
struct QxDecode {
    const void* q;
    void* out;
    int64_t dtype, q_token, q_head, out_token, out_head;
    const void* cache;
    int64_t cache_type, block, part, head, token;
    const int32_t* table;
    int64_t table_row, page;
    const int32_t* indirection;  // [slots, width]: the beam that holds a position
    int64_t beams, width;
    int64_t rows;
    const int32_t *first, *queries, *past, *slots;
    int64_t heads, kv_heads, head_size, capacity, window, sinks;
    const float *key_scale, *value_scale;  // one for all heads (scale_step 0) or one a head (1)
    int64_t scale_step;
    const float* slopes;
    double scale, softcap;
};

// A call that was noted: addresses of the kernel and of its block of arguments.
struct QxCall {
    int64_t kernel, arguments, threads;
};

QX_EXPORT int64_t qx_abi();
QX_EXPORT int64_t qx_isa_built(int64_t isa);
QX_EXPORT int64_t qx_isa_supported(int64_t isa);
QX_EXPORT int64_t qx_set_isa(int64_t isa);
QX_EXPORT int64_t qx_get_isa();
QX_EXPORT void qx_set_openmp(void* parallel, void* thread_num, void* num_threads, void* in_parallel);

QX_EXPORT int64_t qx_layer_norm(const QxNorm* args, int64_t threads);
QX_EXPORT int64_t qx_embed_layer_norm(const QxEmbed* args, int64_t threads);  // -1, or 4 * token + (0 word, 1 position, 2 type)
QX_EXPORT int64_t qx_bias_act(const QxActivationArgs* args, int64_t threads);
QX_EXPORT int64_t qx_gather_rows(const QxRows* args, int64_t threads);   // -1, or the place of the first bad index
QX_EXPORT int64_t qx_scatter_rows(const QxRows* args, int64_t threads);  // the same
QX_EXPORT int64_t qx_linear_bytes(const QxLinear* args);  // of packed weights; 0 where the isa has no product of the dtype
QX_EXPORT int64_t qx_linear_pack(const QxLinear* args, int64_t threads);
QX_EXPORT int64_t qx_linear(const QxLinear* args, int64_t threads);
QX_EXPORT int64_t qx_quant_linear_bytes(const QxQuantLinear* args);
QX_EXPORT int64_t qx_quant_linear_pack(const QxQuantLinear* args, int64_t threads);
QX_EXPORT int64_t qx_quant_linear(const QxQuantLinear* args, int64_t threads);
QX_EXPORT int64_t qx_pack_index(const QxPackIndex* args);  // the longest row
QX_EXPORT int64_t qx_attention(const QxAttention* args, int64_t threads);
QX_EXPORT int64_t qx_quant_attention(const QxQuantAttention* args, int64_t threads);
QX_EXPORT int64_t qx_decode(const QxDecode* args, int64_t threads);
// QX_OK, or 256 * the call that failed + its status. times: null, or [count + 1]: nanoseconds before the first call and
// after each.
QX_EXPORT int64_t qx_replay(const QxCall* calls, int64_t count, int64_t* times);
