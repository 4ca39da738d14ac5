"Latent motion diffusion: an image, and if wished a sentence, become a short clip."
__version__ = "0.1.0"
__all__ = ["LaMD"]


def __getattr__(name):
    "`LaMD` is imported when it is first asked for: `import lamd_nb` stays light."
    if name == "LaMD":
        from lamd_nb.pipeline import LaMD
        return LaMD
    raise AttributeError(f"module 'lamd_nb' has no attribute '{name}'")
