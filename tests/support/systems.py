"""Every task of the unified protocol, with the least it takes: read off the wire contract, not off the emulator."""

from __future__ import annotations

from typing import Any

LINK = "https://example.com/cat.png"
CLIP = "https://example.com/cat.mp4"
PROMPT = {"prompt": "a boat on the sea"}
SCENE = {**PROMPT, "image": LINK}
PARENT = {"origin_task_id": "parent"}
ADVANCED = "Qubico/flux1-dev-advanced"
SWAP = {"target_image": LINK, "swap_image": LINK}
TRELLIS = ("Qubico/trellis", "Qubico/trellis2")
MESH = "model/gltf-binary"
PNG, MP4, WAV = "image/png", "video/mp4", "audio/wav"

EVERY: list[tuple[str, str, dict[str, Any], list[str]]] = [
    *((model, "txt2img", PROMPT, [PNG]) for model in ("Qubico/flux1-schnell", "Qubico/flux1-dev", ADVANCED)),
    *((model, "img2img", SCENE, [PNG]) for model in ("Qubico/flux1-schnell", "Qubico/flux1-dev", ADVANCED)),
    *((ADVANCED, task_type, PROMPT, [PNG]) for task_type in ("txt2img-lora", "controlnet-lora")),
    *(
        (ADVANCED, task_type, SCENE, [PNG])
        for task_type in ("img2img-lora", "fill-inpaint", "fill-outpaint", "redux-variation", "kontext")
    ),
    (
        "music-u",
        "generate_music",
        {"gpt_description_prompt": "night jazz", "lyrics_type": "generate"},
        [WAV, PNG] * 2,
    ),
    ("music-u", "generate_lyrics", {"gpt_description_prompt": "rain"}, []),
    *((model, "video_generation", PROMPT, [MP4, PNG, MP4, MP4]) for model in ("kling", "kling-turbo")),
    ("kling", "video_generation", {"image_url": LINK, "duration": 10, "mode": "pro"}, [MP4, PNG, MP4, MP4]),
    ("kling", "extend_video", PARENT, [MP4, PNG, MP4, MP4]),
    ("kling", "lip_sync", {**PARENT, "tts_text": "hello", "tts_speed": 1}, [MP4, PNG, MP4, MP4]),
    ("kling", "effects", {"image_url": LINK, "effect": "squish"}, [MP4, PNG, MP4, MP4]),
    ("kling", "ai_try_on", {"model_input": LINK, "dress_input": LINK, "batch_size": 2}, [PNG] * 4),
    ("kling", "sound", PARENT, [MP4, PNG, MP4, MP4]),
    ("kling", "sound", PROMPT, [MP4, PNG, MP4, MP4]),
    *(
        ("kling", task_type, {**PROMPT, "image_url": LINK}, [MP4, PNG, MP4, MP4])
        for task_type in ("avatar", "motion_control")
    ),
    ("kling", "omni_video_generation", {**PROMPT, "images": [LINK]}, [MP4]),
    ("hailuo", "video_generation", {**PROMPT, "model": "t2v-02", "duration": 6}, [PNG, MP4, MP4]),
    ("luma", "video_generation", {**PROMPT, "aspect_ratio": "16:9"}, [MP4, MP4, PNG, PNG]),
    (
        "luma",
        "extend_video",
        {"key_frames": {"frame0": {"type": "image", "url": LINK}}},
        [MP4, MP4, PNG, PNG],
    ),
    ("Qubico/hug-video", "image_to_video", {"image_url": LINK}, [MP4]),
    *(("Qubico/image-toolkit", task_type, SWAP, [PNG]) for task_type in ("face-swap", "multi-face-swap")),
    ("Qubico/video-toolkit", "face-swap", {"target_video": CLIP, "swap_image": LINK}, [MP4]),
    ("Qubico/tts", "zero-shot", {"gen_text": "hello", "ref_audio": "https://example.com/me.wav"}, [WAV]),
    *((model, "image-to-3d", {"image": LINK}, [MESH, MP4, PNG]) for model in TRELLIS),
    *((model, "text-to-3d", PROMPT, [MESH, MP4]) for model in TRELLIS),
    *(
        ("Qubico/wanx", task_type, {**SCENE, "first_frame": LINK}, [MP4])
        for task_type in (
            *("txt2video-1.3b", "txt2video-14b", "img2video-14b", "txt2video-14b-lora", "img2video-14b-lora"),
            *(
                "img2video-14b-keyframe",
                "img2video-14b-control-camera",
                "wan22-txt2video-14b",
                "wan22-img2video-14b",
            ),
        )
    ),
    *(("Wan", task_type, SCENE, [MP4]) for task_type in ("wan26-txt2video", "wan26-img2video")),
    *((model, "img2video", SCENE, [MP4]) for model in ("Qubico/skyreels", "Qubico/framepack")),
    *(
        ("Qubico/hunyuan", task_type, PROMPT, [MP4])
        for task_type in ("txt2video", "fast-txt2video", "img2video-concat", "txt2video-lora")
    ),
    ("Qubico/mmaudio", "video2audio", {"prompt": "waves", "video": CLIP}, [WAV]),
    ("Qubico/diffrhythm", "txt2audio-base", {"lyrics": "", "style_prompt": "pop"}, [WAV]),
    ("Qubico/image-toolkit", "upscale", {"image": LINK, "scale": 2, "face_enhance": True}, [PNG]),
    ("Qubico/image-toolkit", "background-remove", {"image": LINK}, [PNG]),
    ("Qubico/image-toolkit", "segment", {"image": LINK, "prompt": "the cat", "segment_factor": -15}, [PNG]),
    *(
        ("Qubico/video-toolkit", task_type, {"video": CLIP}, [MP4])
        for task_type in ("upscale", "background-remove")
    ),
    *((model, "of-next-month", {"anything": [1]}, [PNG, PNG]) for model in ("gemini", "seedream")),
    *((model, "txt2img", PROMPT, [PNG, PNG]) for model in ("Qubico/qwen-image", "Qubico/z-image")),
    *(
        (model, f"{model}-video", PROMPT, [MP4])
        for model in ("sora2", "veo3", "veo3.1", "seedance", "omni-human")
    ),
    ("Qubico/ace-step", "txt2audio", {"style_prompt": "folk"}, [WAV]),
    ("byteaudio", "seed-audio-1.0", {"text": "hello", "sample_rate": 24000}, [WAV]),
    ("Qubico/pixal3d", "image-to-3d", {"image": LINK, "seed": 0}, [MESH]),
    ("Qubico/joycaption", "joycaption-beta-one", {"image": LINK}, []),
    *(
        (model, "video_generation", {**PROMPT, "image_url": LINK}, [PNG, MP4, MP4])
        for model in (
            *("t2v-01", "i2v-01", "s2v-01", "t2v-01-director", "i2v-01-director", "i2v-01-live"),
            *("t2v-02", "i2v-02", "v2.3"),
        )
    ),
]

BASE64 = "iVBORw0KGgo="
DATA_URI = f"data:image/png;base64,{BASE64}"
REFERENCES = {
    "image_urls": [LINK] * 9,
    "video_urls": [CLIP] * 3,
    "audio_urls": ["https://example.com/me.wav"] * 3,
}

#: What is taken beyond the vendor's tables: newer words, other spellings, inputs that its clients are seen to send.
BEYOND: list[tuple[str, str, dict[str, Any]]] = [
    *(
        ("seedance", task_type, {**PROMPT, **REFERENCES, "aspect_ratio": ratio, "duration": -1})
        for task_type, ratio in (
            ("seedance-2-less-restriction", "auto"),
            ("seedance-2-fast-less-restriction", "auto"),
            ("seedance-2-mini-less-restriction", "16:9"),
            ("seedance-2.5-less-restriction", "adaptive"),
        )
    ),
    (
        "seedance",
        "seedance-2.5",
        {
            **PROMPT,
            "auto_upload_assets": True,
            "asset_retention_hours": 8,
            "omni_reference_task_type": "edit",
            "draft_task_id": "a",
            "parent_task_id": "b",
        },
    ),
    *(
        ("seedream", task_type, {**PROMPT, "size": "2K"})
        for task_type in (
            *("seedream-5-lite", "seedream-5-pro"),
            *("seedream-5-lite-less-restriction", "seedream-5-pro-less-restriction"),
        )
    ),
    ("music-u", "generate_music", {"prompt": "[Verse] la la", "lyrics_type": "user", "title": "La"}),
    ("music-u", "generate_music", {"lyrics": "[Verse] la la", "lyrics_type": "user", "title": "La"}),
    *((ADVANCED, "kontext", {**PROMPT, "image": image}) for image in (BASE64, DATA_URI)),
    ("Qubico/image-toolkit", "face-swap", {"target_image": BASE64, "swap_image": DATA_URI}),
    ("Qubico/wanx", "img2video-14b-keyframe", {"image": BASE64, "start_image": BASE64, "end_image": BASE64}),
    ("Wan", "wan26-img2video", {"image": BASE64, "prompt_extend": True, "shot_type": "multi"}),
    ("Wan", "wan26-txt2video", {**PROMPT, "prompt_extend": False, "shot_type": "single"}),
    ("Qubico/trellis", "image-to-3d", {"image": BASE64}),
    ("Qubico/diffrhythm", "txt2audio-full", {"lyrics": "la", "style_audio": BASE64}),
    (
        ADVANCED,
        "controlnet-lora",
        {
            **SCENE,
            "denoise": 0.7,
            "batch_size": 4,
            "lora_settings": [],
            "control_net_settings": [{"control_type": "openpose", "control_image": LINK}],
        },
    ),
    (ADVANCED, "redux-variation", {"image": LINK, "batch_size": 2, "denoise": 0.5}),
    (ADVANCED, "fill-inpaint", {**SCENE, "batch_size": 2, "denoise": 0.5, "guidance_scale": 30}),
    ("kling", "video_generation", {**PROMPT, "mode": "turbo", "version": "2.5", "image_url": ""}),
    *(
        ("kling", "video_generation", {**PROMPT, "version": version})
        for version in ("1.0", "1.5", "1.6", "2.0", "2.1", "2.1-master", "2.5", "2.6", "3.0", "o1", 2.1)
    ),
    *(
        ("kling", "effects", {"image_url": LINK, "effect": effect})
        for effect in ("squish", "expansion", "kissing", "hugging", "fighting")
    ),
    ("kling", "motion_control", {"image_url": LINK, "preset_motion": "Nezha", "video_url": ""}),
    ("kling", "lip_sync", {"video_url": CLIP, "tts_text": "hello", "tts_speed": 0.8}),
    ("kling", "ai_try_on", {"model_input": LINK, "upper_input": LINK, "dress_input": ""}),
    *(
        ("Qubico/wanx", task_type, {"image": LINK})
        for task_type in (
            *("img2video-14b", "img2video-14b-keyframe", "img2video-14b-control-camera"),
            "wan22-img2video-14b",
        )
    ),
    ("omni-human", "omni-human-1.5", {"image_url": LINK, "audio_url": CLIP, "fast_mode": True}),
    ("gemini", "nano-banana-2", {**PROMPT, "enable_web_search": True, "image_urls": [LINK] * 14}),
    ("luma", "video_generation", {**PROMPT, "duration": 5, "key_frames": {"frame0": {"type": ""}}}),
    ("hailuo", "video_generation", {**PROMPT, "model": "v2.3", "resolution": "1080p", "duration": 10}),
]
