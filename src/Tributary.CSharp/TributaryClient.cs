namespace Tributary.CSharp;
