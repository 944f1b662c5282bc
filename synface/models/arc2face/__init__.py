"""Arc2Face (Papantoniou et al., ECCV 2024): Stable Diffusion 1.5 whose prompt is an ArcFace embedding."""
