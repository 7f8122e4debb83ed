"""Rename tables as data: names in a file to names in our modules."""

# Live2Diff's motion and depth keys; {0}, {1} stand for numbers.
# Left: the reference's, right: StreamingUNet's.
LIVE2DIFF_PREFIXES = (
    ("down_blocks.{0}.motion_modules.{1}.temporal_transformer.", "temporal_down.{0}.{1}."),
    ("up_blocks.{0}.motion_modules.{1}.temporal_transformer.", "temporal_up.{0}.{1}."),
    ("flow_conv_in.", "depth_mapping."),
)

LIVE2DIFF_TRANSFORMER = (
    ("transformer_blocks.0.attention_blocks.{0}.to_out.0.", "attentions.{0}.to_out."),
    ("transformer_blocks.0.attention_blocks.{0}.", "attentions.{0}."),
    ("transformer_blocks.0.norms.{0}.", "attention_norms.{0}."),
    ("transformer_blocks.0.ff_norm.", "ff_norm."),
    ("transformer_blocks.0.ff.", "ff."),
)

# Position tables and what the reference derives from them: recomputed, never loaded.
LIVE2DIFF_PROJECTED = (".q_pe", ".k_pe", ".v_pe")
LIVE2DIFF_DERIVED = (".pos_encoder.pe", *LIVE2DIFF_PROJECTED)
