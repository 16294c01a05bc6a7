from components.recognition.stages import main
from components.shard.stage import run

if __name__ == "__main__":
    main(run)
