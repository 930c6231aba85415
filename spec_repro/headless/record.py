    torch = sys.modules.get("torch")
    gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    head = ["git", "rev-parse", "HEAD"]
    git = subprocess.run(head, cwd=project_root(), capture_output=True, text=True) if shutil.which("git") else None
    return {
        "seconds": round(seconds, 1),
        "peak_memory_gb": round(peak / 1e9, 2),
        "peak_gpu_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if gpu else None,
        "device": torch.cuda.get_device_name() if gpu else f"CPU {platform.machine()}",
        "threads": torch.get_num_threads() if torch else None,
        "commit": (git and git.stdout.strip()) or None,
    }
