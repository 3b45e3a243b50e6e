from torch_xdna.cli import main

main()
