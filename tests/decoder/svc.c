// Encodes raw pictures from standard input with spatial and temporal layers, by libvpx and libaom, which no command does.
//
// svc vp9|vp9-key|av1|av1-key SPATIAL_LAYERS WIDTH HEIGHT <pictures >frames
//
// With -key the spatial layers of a picture refer to each other in key pictures only. Pictures are I420. Each frame is
// written as: spatial layer, temporal layer, whether a key picture (a byte each), length (32 bits, as the machine has them),
// data. The temporal layers of the pictures are 0 2 1 2: those of layer 1, and the first
// ones of layer 2, refer to layer 0; the second ones of layer 2 to layer 1.

#include <aom/aom_encoder.h>
#include <aom/aomcx.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vpx/vp8cx.h>
#include <vpx/vpx_encoder.h>

enum { SPATIAL_MAX = 3, TEMPORAL = 3, KBITS = 150 };
static const int PATTERN[4] = {0, 2, 1, 2};

static int spatial_layers, width, height;

static void fail(const char *what) {
  fprintf(stderr, "svc: %s\n", what);
  exit(1);
}

static void check(int error, const char *what) {
  if (error) fail(what);
}

static void put(int spatial, int temporal, int key, const void *data, size_t size) {
  const uint8_t head[3] = {spatial, temporal, key};
  const uint32_t length = size;
  if (fwrite(head, 1, 3, stdout) != 3 || fwrite(&length, 4, 1, stdout) != 1 || fwrite(data, 1, size, stdout) != size)
    fail("cannot write");
}

// Layers are half as wide as the one above.
static int divisor(int spatial) { return 1 << (spatial_layers - 1 - spatial); }

static int read_picture(uint8_t *to) {
  const size_t size = width * height * 3 / 2;
  return fread(to, 1, size, stdin) == size;
}

static vpx_svc_layer_id_t vp9_layer;
static int vp9_key;

static void on_vp9_frame(vpx_codec_cx_pkt_t *packet, void *encoder) {
  vpx_svc_layer_id_t layer;
  check(vpx_codec_control((vpx_codec_ctx_t *)encoder, VP9E_GET_SVC_LAYER_ID, &layer), "layer id");
  if (packet->kind == VPX_CODEC_CX_FRAME_PKT)
    put(layer.spatial_layer_id, vp9_layer.temporal_layer_id, vp9_key, packet->data.frame.buf, packet->data.frame.sz);
}

static void encode_vp9(int key_only, uint8_t *pixels) {
  vpx_codec_ctx_t encoder;
  vpx_codec_enc_cfg_t config;
  vpx_svc_extra_cfg_t layers;
  memset(&layers, 0, sizeof layers);
  check(vpx_codec_enc_config_default(vpx_codec_vp9_cx(), &config, 0), "defaults");
  config.g_w = width;
  config.g_h = height;
  config.g_timebase.num = 1;
  config.g_timebase.den = 30;
  config.g_threads = 1;
  config.g_lag_in_frames = 0;
  config.g_error_resilient = VPX_ERROR_RESILIENT_DEFAULT;
  config.rc_end_usage = VPX_CBR;
  config.rc_dropframe_thresh = 0;
  config.kf_mode = VPX_KF_DISABLED;
  config.ss_number_layers = spatial_layers;
  config.ts_number_layers = TEMPORAL;
  config.temporal_layering_mode = VP9E_TEMPORAL_LAYERING_MODE_0212;
  for (int s = 0; s < spatial_layers; s++) {
    layers.scaling_factor_num[s] = 1;
    layers.scaling_factor_den[s] = divisor(s);
    for (int t = 0; t < TEMPORAL; t++) {
      layers.max_quantizers[s * TEMPORAL + t] = 56;
      layers.min_quantizers[s * TEMPORAL + t] = 10;
      config.layer_target_bitrate[s * TEMPORAL + t] = KBITS * (s + 1) * (t + 2) / (TEMPORAL + 1);
    }
    config.ss_target_bitrate[s] = KBITS * (s + 1);
    config.rc_target_bitrate += s == 0 ? KBITS - config.rc_target_bitrate : KBITS * (s + 1);
  }
  for (int t = 0; t < TEMPORAL; t++) config.ts_rate_decimator[t] = 4 >> t;
  check(vpx_codec_enc_init(&encoder, vpx_codec_vp9_cx(), &config, 0), "libvpx");
  check(vpx_codec_control(&encoder, VP8E_SET_CPUUSED, 8), "speed");
  check(vpx_codec_control(&encoder, VP9E_SET_SVC, 1), "layers");
  check(vpx_codec_control(&encoder, VP9E_SET_SVC_PARAMETERS, &layers), "layers' parameters");
  check(vpx_codec_control(&encoder, VP9E_SET_SVC_INTER_LAYER_PRED, key_only ? 2 : 0), "inter-layer prediction");
  vpx_codec_priv_output_cx_pkt_cb_pair_t output = {on_vp9_frame, &encoder};
  check(vpx_codec_control(&encoder, VP9E_REGISTER_CX_CALLBACK, &output), "callback");
  for (int n = 0; read_picture(pixels); n++) {
    vpx_image_t image;
    if (!vpx_img_wrap(&image, VPX_IMG_FMT_I420, width, height, 1, pixels)) fail("picture");
    vp9_key = n == 0;
    memset(&vp9_layer, 0, sizeof vp9_layer);
    vp9_layer.temporal_layer_id = PATTERN[n % 4];
    check(vpx_codec_encode(&encoder, &image, n, 1, n == 0 ? VPX_EFLAG_FORCE_KF : 0, VPX_DL_REALTIME), "encode");
    vpx_codec_iter_t iterator = NULL;
    while (vpx_codec_get_cx_data(&encoder, &iterator)) continue;
  }
  vpx_codec_destroy(&encoder);
}

// Which buffers a frame of AV1 refers to and renews. Buffers 0 to 2 hold temporal layer 0 of each spatial layer, 3 to 5
// layer 1, 6 and 7 what the upper spatial layers of a picture of layer 2 refer to.
static aom_svc_ref_frame_config_t av1_references(int key_only, int n, int spatial) {
  enum { LAST = 0, GOLDEN = 3 };
  const int place = n % 4, temporal = PATTERN[place];
  const int own = spatial + (place == 3 ? 3 : 0);
  const int below = spatial - 1 + (temporal == 0 ? 0 : temporal == 1 ? 3 : 6);
  aom_svc_ref_frame_config_t config;
  memset(&config, 0, sizeof config);
  // Decoders look at those that are not used as well.
  for (int at = 0; at < 7; at++) config.ref_idx[at] = n == 0 && spatial > 0 ? below : own;
  if (n > 0) config.reference[LAST] = 1;
  if (spatial > 0 && (n == 0 || !key_only)) {
    config.ref_idx[GOLDEN] = below;
    config.reference[GOLDEN] = 1;
  }
  if (temporal == 0) config.refresh[spatial] = 1;
  if (n == 0 || temporal == 1) config.refresh[3 + spatial] = 1;
  if (temporal == 2 && spatial < 2) config.refresh[6 + spatial] = 1;
  return config;
}

static void encode_av1(int key_only, uint8_t *pixels) {
  aom_codec_ctx_t encoder;
  aom_codec_enc_cfg_t config;
  aom_svc_params_t layers;
  memset(&layers, 0, sizeof layers);
  check(aom_codec_enc_config_default(aom_codec_av1_cx(), &config, AOM_USAGE_REALTIME), "defaults");
  config.g_w = width;
  config.g_h = height;
  config.g_timebase.num = 1;
  config.g_timebase.den = 30;
  config.g_threads = 1;
  config.g_lag_in_frames = 0;
  config.rc_end_usage = AOM_CBR;
  config.kf_mode = AOM_KF_DISABLED;
  config.rc_target_bitrate = 0;
  layers.number_spatial_layers = spatial_layers;
  layers.number_temporal_layers = TEMPORAL;
  for (int t = 0; t < TEMPORAL; t++) layers.framerate_factor[t] = 4 >> t;
  for (int s = 0; s < spatial_layers; s++) {
    layers.scaling_factor_num[s] = 1;
    layers.scaling_factor_den[s] = divisor(s);
    for (int t = 0; t < TEMPORAL; t++) {
      layers.max_quantizers[s * TEMPORAL + t] = 56;
      layers.min_quantizers[s * TEMPORAL + t] = 10;
      layers.layer_target_bitrate[s * TEMPORAL + t] = KBITS * (s + 1) * (t + 2) / (TEMPORAL + 1);
    }
    config.rc_target_bitrate += KBITS * (s + 1);
  }
  check(aom_codec_enc_init(&encoder, aom_codec_av1_cx(), &config, 0), "libaom");
  check(aom_codec_control(&encoder, AOME_SET_CPUUSED, 10), "speed");
  check(aom_codec_control(&encoder, AV1E_SET_SVC_PARAMS, &layers), "layers' parameters");
  for (int n = 0; read_picture(pixels); n++) {
    aom_image_t image;
    if (!aom_img_wrap(&image, AOM_IMG_FMT_I420, width, height, 1, pixels)) fail("picture");
    for (int s = 0; s < spatial_layers; s++) {
      aom_svc_layer_id_t id = {s, PATTERN[n % 4]};
      aom_svc_ref_frame_config_t references = av1_references(key_only, n, s);
      check(aom_codec_control(&encoder, AV1E_SET_SVC_LAYER_ID, &id), "layer id");
      check(aom_codec_control(&encoder, AV1E_SET_SVC_REF_FRAME_CONFIG, &references), "references");
      check(aom_codec_encode(&encoder, &image, n, 1, n == 0 && s == 0 ? AOM_EFLAG_FORCE_KF : 0), "encode");
      aom_codec_iter_t iterator = NULL;
      const aom_codec_cx_pkt_t *packet;
      while ((packet = aom_codec_get_cx_data(&encoder, &iterator)))
        if (packet->kind == AOM_CODEC_CX_FRAME_PKT)
          put(s, id.temporal_layer_id, n == 0, packet->data.frame.buf, packet->data.frame.sz);
    }
  }
  aom_codec_destroy(&encoder);
}

int main(int count, char **arguments) {
  if (count != 5) fail("svc vp9|vp9-key|av1|av1-key SPATIAL_LAYERS WIDTH HEIGHT");
  spatial_layers = atoi(arguments[2]);
  width = atoi(arguments[3]);
  height = atoi(arguments[4]);
  if (spatial_layers < 1 || spatial_layers > SPATIAL_MAX || width < 16 || height < 16) fail("out of range");
  uint8_t *pixels = malloc(width * height * 3 / 2);
  if (!pixels) fail("no memory");
  const int key_only = strstr(arguments[1], "-key") != NULL;
  if (strncmp(arguments[1], "av1", 3) == 0)
    encode_av1(key_only, pixels);
  else
    encode_vp9(key_only, pixels);
  free(pixels);
  return 0;
}
