/* GCC's _tile_loadconfig says that ldtilecfg reads 8 bytes. It reads 64, and the stores to the other 56 are
   dropped as dead. This one names all of them. */
#ifdef __AMX_TILE__
#include <immintrin.h>
#undef _tile_loadconfig
#define _tile_loadconfig(address) __asm__ volatile("ldtilecfg %0" : : "m"(*(const char(*)[64])(address)))
#endif
