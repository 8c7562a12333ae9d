// The dtypes of activations: what ops take and give, computing in float32.

export const floats = ['float32', 'bfloat16', 'float16'] as const;
export type Float = (typeof floats)[number];
