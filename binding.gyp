# The CPU addon where there is no CMake; same sources and flags as CMakeLists.txt, but no -Werror and no CUDA.
{
  "includes": ["sources.gypi"],
  "targets": [
    {
      "target_name": "linattn",
      "sources": ["<@(cpp_sources)"],
      "include_dirs": [
        "native",
        "<!(node -p \"require('node-api-headers').include_dir\")",
        "<!(node -p \"require('node-addon-api').include_dir\")"
      ],
      # The last: where a worker is being terminated nothing can be thrown, and that must not end the process.
      "defines": [
        "NAPI_VERSION=9", "NODE_ADDON_API_CPP_EXCEPTIONS", "NDEBUG", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"
      ],
      "cflags!": ["-Wno-unused-parameter"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20"],
      "cflags_cc": [
        "-std=c++20", "-O3", "-fno-math-errno", "-ffp-contract=off", "-fvisibility=hidden", "-fvisibility-inlines-hidden",
        "-Wall", "-Wextra", "-Wno-psabi", "-Wno-uninitialized", "-Wno-maybe-uninitialized"
      ],
      "conditions": [
        ["OS=='linux'", {
          "ldflags": ["-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"],
          "libraries": ["-lpthread", "-ldl"]
        }],
        ["OS=='mac'", {
          "xcode_settings": {
            "CLANG_CXX_LANGUAGE_STANDARD": "c++20",
            "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
            "GCC_ENABLE_CPP_RTTI": "YES",
            "GCC_OPTIMIZATION_LEVEL": "3",
            "GCC_SYMBOLS_PRIVATE_EXTERN": "YES",
            "MACOSX_DEPLOYMENT_TARGET": "11.0",
            "OTHER_CPLUSPLUSFLAGS": ["-fno-math-errno", "-ffp-contract=off", "-Wall", "-Wextra"]
          }
        }]
      ]
    }
  ]
}
