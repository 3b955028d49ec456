"""Gradio's theme, with contrast that passes WCAG AA and fonts that every machine has."""

import gradio as gr

FONT = ("system-ui", "Hiragino Sans", "Yu Gothic UI", "Meiryo", "Noto Sans CJK JP", "sans-serif")
"""Fonts of the reader's own machine: a web font for Japanese would weigh megabytes."""


def theme() -> gr.themes.Base:
    """Return the base theme with its failing contrasts corrected; Japanese in tables and code keeps its own font."""
    return gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        font=list(FONT),
        font_mono=["ui-monospace", "Menlo", "Consolas", *FONT],
    ).set(
        button_primary_background_fill="*primary_800",
        button_primary_background_fill_hover="*primary_900",
        button_primary_background_fill_dark="*primary_800",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
