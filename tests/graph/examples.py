"""Examples of operators, by key, of every kind that mobile networks are made of, in the dtypes that a runtime takes."""

from __future__ import annotations

# weights and bias are implied; these exist in every dtype
_WEIGHTED = """
conv_2d;D;in=1x9x9x8;out_channels=12;kernel=3x3;stride=2x2;act=relu6
conv_2d;D;in=1x9x9x8;out_channels=12
conv_2d;D;in=1x9x9x8;out_channels=12;kernel=3x3;groups=4
conv_2d;D;in=1x9x9x8;out_channels=12;kernel=3x3;dilation=2x2
conv_2d;D;in=1x9x9x8;out_channels=12;kernel=3x3;stride=2x2;padding=valid;act=relu;pad=0x1x0x1
conv_2d;D;in=1x9x9x8;out_channels=12;kernel=3x3;padding=valid;then=relu6
depthwise_conv_2d;D;in=1x9x9x8;out_channels=8;kernel=3x3;stride=2x2;act=relu6
depthwise_conv_2d;D;in=1x9x9x8;out_channels=16;kernel=3x3
depthwise_conv_2d;D;in=1x9x9x8;out_channels=8;kernel=3x3;dilation=2x2
depthwise_conv_2d;D;in=1x9x9x8;out_channels=8;kernel=3x3;stride=2x2;padding=valid;pad=1x1x1x1;then=relu
transpose_conv;D;in=1x5x5x8;out_channels=4;kernel=3x3;stride=2x2
transpose_conv;D;in=1x5x5x8;out_channels=4;kernel=2x2;stride=2x2;padding=valid
transpose_conv;D;in=1x5x5x8;out_channels=4;kernel=3x3;stride=2x2;padding=valid;out=1x12x12x4
fully_connected;D;in=1x64;out_channels=10
fully_connected;D;in=1x64;out_channels=10;act=relu
fully_connected;D;in=4x64;out_channels=10
fully_connected;D;in=1x1x1x80;out_channels=10
""".strip().splitlines()

# activations only, in float32, int8 and uint8
_PLAIN = """
average_pool_2d;D;in=1x9x9x8;kernel=3x3;stride=2x2
average_pool_2d;D;in=1x7x7x8;kernel=7x7;stride=7x7;padding=valid
max_pool_2d;D;in=1x9x9x8;kernel=2x2;stride=2x2;padding=valid
max_pool_2d;D;in=1x9x9x8;kernel=3x3;stride=2x2;padding=valid;pad=0x1x0x1
mean;D;in=1x7x7x8
mean;D;in=1x7x7x8,cint32:2(1_2);out=1x8
add;D;in=1x7x7x8,1x7x7x8
add;D;in=1x7x7x8,c1x1x1x8;act=relu
add;D;in=1x7x7x8,1x7x7x8;then=relu
mul;D;in=1x7x7x8,1x1x1x8
mul;D;in=1x1x1x8,1x7x7x8
mul;D;in=1x7x7x8,cscalar
sub;D;in=1x7x7x8,1x7x7x8;out=1x7x7x8
concatenation;D;in=1x7x7x8,1x7x7x4;out=1x7x7x12;@axis=3
concatenation;D;in=1x7x7x8,1x7x7x4,1x7x7x8;out=1x7x7x20;@axis=-1
split;D;in=cint32:scalar(3),1x7x7x8;out=1x7x7x4,1x7x7x4;@num_splits=2
split_v;D;in=1x7x7x8,cint32:2(2_6),cint32:scalar(3);out=1x7x7x2,1x7x7x6;@num_splits=2
relu;D;in=1x7x7x8;out=1x7x7x8
relu6;D;in=1x7x7x8;out=1x7x7x8
relu_n1_to_1;D;in=1x7x7x8;out=1x7x7x8
hard_swish;D;in=1x7x7x8;out=1x7x7x8
logistic;D;in=1x7x7x8
gelu;D;in=1x7x7x8;out=1x7x7x8
gelu;D;in=1x7x7x8;out=1x7x7x8;@approximate=1
softmax;D;in=1x10;out=1x10;@beta=1.0
tanh;D;in=1x7x7x8;out=1x7x7x8
prelu;D;in=1x7x7x8,c1x1x8;out=1x7x7x8
leaky_relu;D;in=1x7x7x8;out=1x7x7x8;@alpha=0.1
resize_bilinear;D;in=1x7x7x8,cint32:2(14_14);out=1x14x14x8;@half_pixel_centers=1
resize_bilinear;D;in=1x7x7x8,cint32:2(14_14);out=1x14x14x8;@align_corners=1
resize_nearest_neighbor;D;in=1x7x7x8,cint32:2(14_14);out=1x14x14x8;@half_pixel_centers=1
resize_nearest_neighbor;D;in=1x7x7x8,cint32:2(14_14);out=1x14x14x8
pad;D;in=1x7x7x8,cint32:4x2(0_0_1_1_1_1_0_0);out=1x9x9x8
padv2;D;in=1x7x7x8,cint32:4x2(0_0_1_1_1_1_0_0),cscalar;out=1x9x9x8
mirror_pad;D;in=1x7x7x8,cint32:4x2(0_0_1_1_1_1_0_0);out=1x9x9x8
mirror_pad;D;in=1x7x7x8,cint32:4x2(0_0_1_1_1_1_0_0);out=1x9x9x8;@mode=1
reshape;D;in=1x7x7x8,cint32:2(1_-1);out=1x392
reshape;D;in=1x7x7x8;out=1x392
transpose;D;in=1x7x7x8,cint32:4(0_3_1_2);out=1x8x7x7
slice;D;in=1x7x7x8,cint32:4(0_0_0_2),cint32:4(-1_-1_-1_4);out=1x7x7x4
strided_slice;D;in=1x7x7x8,cint32:4(0_0_0_0),cint32:4(0_0_0_4),cint32:4(1_1_1_1);out=1x7x7x4;@begin_mask=15;@end_mask=7
depth_to_space;D;in=1x7x7x8;out=1x14x14x2;@block_size=2
space_to_depth;D;in=1x8x8x2;out=1x4x4x8;@block_size=2
sum;D;in=1x7x7x8,cint32:scalar(3);out=1x7x7
reduce_max;D;in=1x7x7x8,cint32:2(1_2);out=1x1x1x8;@keep_dims=1
reduce_min;D;in=1x7x7x8,cint32:2(1_2);out=1x1x1x8;@keep_dims=1
maximum;D;in=1x7x7x8,1x7x7x8;out=1x7x7x8
minimum;D;in=1x7x7x8,cscalar;out=1x7x7x8
squeeze;D;in=1x1x1x8;out=1x8;@squeeze_dims=1_2
expand_dims;D;in=1x8,cint32:scalar(1);out=1x1x8
pack;D;in=7x8,7x8;out=7x2x8;@axis=1;@values_count=2
unpack;D;in=7x2x8;out=7x8,7x8;@axis=1;@num=2
gather;D;in=1x7x7x8,cint32:8(0_2_4_6_1_3_5_7);out=1x7x7x8;@axis=3
tile;D;in=1x7x1x8,cint32:4(1_1_7_1);out=1x7x7x8
arg_max;D;in=1x10,cint32:scalar(1);out=1;@output_type=2;@outs=int32
l2_normalization;D;in=1x10;out=1x10
log_softmax;D;in=1x10;out=1x10
topk_v2;D;in=1x10,cint32:scalar(3);out=1x3,1x3;@outs=D_int32
greater;D;in=1x7x7x8,cscalar;out=1x7x7x8;@outs=bool
space_to_batch_nd;D;in=1x8x8x8,cint32:2(2_2),cint32:2x2(0_0_0_0);out=4x4x4x8
batch_to_space_nd;D;in=4x4x4x8,cint32:2(2_2),cint32:2x2(0_0_0_0);out=1x8x8x8
""".strip().splitlines()

# the runtime has no uint8 kernels for these
_WITHOUT_UINT8 = """
elu;D;in=1x7x7x8;out=1x7x7x8
batch_matmul;D;in=2x7x8,2x8x5;out=2x7x5
batch_matmul;D;in=2x7x8,2x5x8;out=2x7x5;@adj_y=1
squared_difference;D;in=1x7x7x8,1x1x1x8;out=1x7x7x8
rsqrt;D;in=1x7x7x8;out=1x7x7x8
abs;D;in=1x7x7x8;out=1x7x7x8
""".strip().splitlines()

# the runtime has only float kernels for these
_FLOAT = """
div;D;in=1x7x7x8,1x7x7x8;out=1x7x7x8
exp;D;in=1x7x7x8;out=1x7x7x8
neg;D;in=1x7x7x8;out=1x7x7x8
sqrt;D;in=1x7x7x8;out=1x7x7x8
pow;D;in=1x7x7x8,cscalar;out=1x7x7x8
square;D;in=1x7x7x8;out=1x7x7x8
cumsum;D;in=1x10,cint32:scalar(1);out=1x10
cast;D;in=int32:1x10;out=1x10;@in_data_type=2;@outs=float32
""".strip().splitlines()

_OTHERS = """
quantize;int8;in=1x7x7x8
quantize;uint8;in=1x7x7x8
quantize;int8;in=uint8:1x7x7x8
quantize;uint8;in=int8:1x7x7x8
dequantize;int8;in=1x10
dequantize;uint8;in=1x10
dequantize;float32;in=float16:1x10
prelu;float16;in=1x7x7x8,c1x1x8;out=1x7x7x8
mul;float16;in=1x7x7x8,c1x1x1x8
batch_matmul;float16;in=1x7x8,c1x8x5;out=1x7x5
batch_matmul;dynamic_int8;in=1x7x8,cint8:1x8x5;out=1x7x5
batch_matmul;float32;in=1x7x8,c1x8x5;out=1x7x5
batch_matmul;int8;in=1x7x8,c1x8x5;out=1x7x5
fully_connected;float32;in=4x64,10x64;out_channels=10
fully_connected;int8;in=4x64,10x64;out_channels=10
conv_2d;float32;in=1x9x9x8,12x3x3x8;out_channels=12;kernel=3x3
add;float32;in=int32:4,int32:4
add;int8;in=int16:1x8x8x8,int16:1x8x8x8;@pot_scale_int16=0
conv_2d;int8;in=int16:1x9x9x8;out_channels=12;kernel=3x3
shape;float32;in=1x7x7x8;out=4;@out_type=2;@outs=int32
select_v2;float32;in=bool:1x10,1x10,1x10;out=1x10;@outs=float32
gather;float32;in=100x8,cint32:70;out=70x8
conv_2d;float32;in=1x9x9x8;out_channels=12;kernel=3x3;act=relu_n1_to_1
add;float16;in=1x7x7x8,c1x1x1x8;then=relu
hard_swish;float32;in=1x1x1x8;out=1x1x1x8
add;float32;in=1x7x7x8,cscalar;then=relu6
add;int8;in=1x7x7x8,cscalar;then=relu6
reshape;float32;in=1x1;out=scalar
pad;int8;in=1x7x7x8,cint64:4x2(0_0_1_1_1_1_0_0);out=1x9x9x8
transpose_conv;float32;in=1x5x5x8;out_channels=4;kernel=4x4;stride=2x2;act=relu
""".strip().splitlines()


def _in(keys: list[str], *dtypes: str) -> list[str]:
    return [key.replace(";D;", f";{dtype};").replace("=D_", f"={dtype}_") for key in keys for dtype in dtypes]


KEYS = [
    *_in(_WEIGHTED, "float32", "float16", "dynamic_int8", "int8", "uint8"),
    *_in(_PLAIN, "float32", "int8", "uint8"),
    *_in(_WITHOUT_UINT8, "float32", "int8"),
    *_in(_FLOAT, "float32"),
    *_OTHERS,
    # missing operands and state that is kept between inferences
    "unidirectional_sequence_lstm;float32;in=1x5x6,c4x6,c4x6,c4x6,c4x6,c4x4,c4x4,c4x4,c4x4,c4,c4,c4,c4,1x4,1x4"
    ";out=1x5x4;@absent=9_10_11_16_17_20_21_22_23;@fused_activation_function=4;@variable=13_14",
]
