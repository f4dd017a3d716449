// An encoder of VP8 that does as it is told from picture to picture, and a decoder, by libvpx.
//
// encoder         Reads for each picture: bits per second, height, milliseconds since the last one, whether it is to be a
//                 key picture. Draws it, wide as 16 to 9, and writes how many bytes it takes, and those.
// encoder decode  Reads a picture as that writes it; writes its height, 0 if it cannot be decoded.
//
// Numbers are 32 bits, as the machine has them.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vpx/vp8cx.h>
#include <vpx/vp8dx.h>
#include <vpx/vpx_decoder.h>
#include <vpx/vpx_encoder.h>

static void check(int fails, const char *what) {
  if (!fails) return;
  fprintf(stderr, "encoder: %s\n", what);
  exit(1);
}

static void put(const void *data, size_t size) { check(fwrite(data, 1, size, stdout) != size, "cannot write"); }

// What a camera sees: shades that wander, things that move, and noise, which is what costs most.
static void draw(vpx_image_t *image, unsigned time, uint32_t *chance) {
  for (unsigned y = 0; y < image->d_h; y++)
    for (unsigned x = 0; x < image->d_w; x++) {
      *chance = *chance * 1664525 + 1013904223;
      const int thing = ((x + time * 3) / 48 + (y + time) / 48) % 2;
      image->planes[0][y * image->stride[0] + x] = 60 + (x + y + time) % 100 / 2 + thing * 60 + (*chance >> 29);
    }
  for (int plane = 1; plane < 3; plane++)
    memset(image->planes[plane], 100 + time % 50, image->stride[plane] * ((image->d_h + 1) / 2));
}

static void encode(void) {
  vpx_codec_ctx_t codec;
  vpx_codec_enc_cfg_t config;
  vpx_image_t *image = NULL;
  uint32_t told[4], chance = 1;
  int64_t now = 0;
  for (unsigned n = 0; fread(told, sizeof told, 1, stdin) == 1; n++) {
    const unsigned bps = told[0], height = told[1], passed = told[2];
    if (!image || image->d_h != height) {
      if (image) {
        vpx_codec_destroy(&codec);
        vpx_img_free(image);
      }
      check(vpx_codec_enc_config_default(vpx_codec_vp8_cx(), &config, 0), "defaults");
      config.g_w = height * 16 / 9 / 2 * 2;
      config.g_h = height;
      config.g_timebase.num = 1;
      config.g_timebase.den = 1000;
      config.g_threads = 1;
      config.g_lag_in_frames = 0;
      config.g_error_resilient = VPX_ERROR_RESILIENT_DEFAULT;
      config.rc_end_usage = VPX_CBR;
      config.rc_dropframe_thresh = 30;
      config.rc_buf_initial_sz = 500;
      config.rc_buf_optimal_sz = 600;
      config.rc_buf_sz = 1000;
      config.rc_max_quantizer = 56;
      config.kf_mode = VPX_KF_DISABLED;
      config.rc_target_bitrate = bps / 1000;
      check(vpx_codec_enc_init(&codec, vpx_codec_vp8_cx(), &config, 0), "libvpx");
      check(vpx_codec_control(&codec, VP8E_SET_CPUUSED, -12), "speed");
      // As WebRTC does: a key picture takes what three pictures may, or a little more.
      check(vpx_codec_control(&codec, VP8E_SET_MAX_INTRA_BITRATE_PCT, 450), "key pictures");
      image = vpx_img_alloc(NULL, VPX_IMG_FMT_I420, config.g_w, height, 16);
      check(!image, "no memory");
    } else if (config.rc_target_bitrate != bps / 1000) {
      config.rc_target_bitrate = bps / 1000;
      check(vpx_codec_enc_config_set(&codec, &config), "another rate");
    }
    draw(image, n, &chance);
    const vpx_enc_frame_flags_t flags = told[3] ? VPX_EFLAG_FORCE_KF : 0;
    check(vpx_codec_encode(&codec, image, now += passed, passed, flags, VPX_DL_REALTIME), "encode");
    vpx_codec_iter_t iterator = NULL;
    const vpx_codec_cx_pkt_t *packet;
    uint32_t size = 0;
    while ((packet = vpx_codec_get_cx_data(&codec, &iterator)))
      if (packet->kind == VPX_CODEC_CX_FRAME_PKT) {
        size = packet->data.frame.sz;
        put(&size, sizeof size);
        put(packet->data.frame.buf, size);
      }
    // It left one out.
    if (!size) put(&size, sizeof size);
    fflush(stdout);
  }
}

static void decode(void) {
  vpx_codec_ctx_t codec;
  check(vpx_codec_dec_init(&codec, vpx_codec_vp8_dx(), NULL, 0), "libvpx");
  uint32_t size;
  while (fread(&size, sizeof size, 1, stdin) == 1) {
    uint8_t *data = malloc(size);
    check(!data || fread(data, 1, size, stdin) != size, "cannot read");
    uint32_t height = 0;
    vpx_codec_iter_t iterator = NULL;
    vpx_image_t *image;
    if (!vpx_codec_decode(&codec, data, size, NULL, 0))
      while ((image = vpx_codec_get_frame(&codec, &iterator))) height = image->d_h;
    free(data);
    put(&height, sizeof height);
    fflush(stdout);
  }
}

int main(int count, char **arguments) {
  if (count > 1 && strcmp(arguments[1], "decode") == 0)
    decode();
  else
    encode();
  return 0;
}
